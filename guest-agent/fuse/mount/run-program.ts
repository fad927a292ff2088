import { spawn, type StdioOptions } from 'node:child_process';

/** What a program that ran to its end left: `output` is its standard error, then its standard output. */
export interface ProgramEnd {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  readonly output: string;
}

/** More output than this is cut off; mount programs say one line. */
const outputBytesMax = 4_096;
/** A program that takes longer is killed: mounting needs milliseconds, and no agent. */
const runTimeoutMs = 10_000;

/**
 * Runs `program` to its end, with `inherited` as its descriptor 3. Rejects with Node's system error when it can't be
 * started (ENOENT: not installed).
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  inherited?: number,
): Promise<ProgramEnd> {
  const stdio: StdioOptions = ['ignore', 'pipe', 'pipe'];
  if (inherited !== undefined) stdio.push(inherited);
  const child = spawn(program, args, {
    stdio,
    timeout: runTimeoutMs,
    killSignal: 'SIGKILL',
  });
  const outputs = { stderr: '', stdout: '' };
  for (const name of ['stderr', 'stdout'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      outputs[name] = (outputs[name] + text).slice(0, outputBytesMax);
    });
  }
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return { exitCode, output: (outputs.stderr + outputs.stdout).trim() };
}
