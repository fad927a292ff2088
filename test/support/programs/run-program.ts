import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface RunOptions {
  readonly workingDirectory?: string;
  /** Added to the test's own environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Bytes for standard input; none when absent. */
  readonly input?: string;
  readonly uid?: number;
  readonly gid?: number;
  /** After this the program is killed and the run fails. */
  readonly timeoutMs?: number;
}

export interface ProgramResult {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

const timeoutMsDefault = 30_000;

/** Runs a program to its end and returns whatever came of it. */
export async function runProgram(
  command: string,
  commandArguments: readonly string[],
  options: RunOptions = {},
): Promise<ProgramResult> {
  const child = spawn(command, commandArguments, {
    cwd: options.workingDirectory,
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...options.environment },
    uid: options.uid,
    gid: options.gid,
    timeout: options.timeoutMs ?? timeoutMsDefault,
    killSignal: 'SIGKILL',
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout.push(chunk);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr.push(chunk);
  });
  // A program that does not read its input is no failure of the test.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  const [exitCode, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return {
    exitCode,
    signal,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  };
}

/** Runs a program that must succeed. @throws Error with what it printed otherwise. */
export async function mustRun(
  command: string,
  commandArguments: readonly string[],
  options: RunOptions = {},
): Promise<ProgramResult> {
  const result = await runProgram(command, commandArguments, options);
  if (result.exitCode !== 0) {
    const end = result.signal ?? `exit code ${result.exitCode}`;
    throw new Error(
      `${command} ${commandArguments.join(' ')}\n${end}\n${result.stdout}${result.stderr}`,
    );
  }
  return result;
}

/** A server that a test started; disposing it ends it. */
export interface RunningProgram extends AsyncDisposable {
  readonly pid: number;
  /** What it printed so far, the newest bytes. */
  readonly output: () => string;
}

const outputCharactersMax = 20_000;
const endTimeoutMs = 10_000;

/** Starts a program that runs until it is disposed: SIGTERM first, SIGKILL when that does not end it. */
export function startProgram(
  command: string,
  commandArguments: readonly string[],
  options: RunOptions & { readonly endSignal?: NodeJS.Signals } = {},
): RunningProgram {
  const child = spawn(command, commandArguments, {
    cwd: options.workingDirectory,
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...options.environment },
    uid: options.uid,
    gid: options.gid,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const keep = (chunk: Buffer | string): void => {
    output = (output + chunk.toString()).slice(-outputCharactersMax);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => {
      resolve();
    });
    child.once('error', (error) => {
      keep(error.message);
      resolve();
    });
  });
  return {
    pid: child.pid ?? 0,
    output: () => output,
    [Symbol.asyncDispose]: async () => {
      child.kill(options.endSignal ?? 'SIGTERM');
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
      }, endTimeoutMs);
      await exited;
      clearTimeout(timer);
    },
  };
}
