import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { BackendName } from '../../guest-agent/fuse/backend-capability.ts';
import { isMountedAt } from '../../guest-agent/fuse/mount/mount-point.ts';
import { eventually } from './eventually.ts';

export interface CommandEnd {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunningUpOptions {
  readonly backend?: BackendName;
  /** What the process is started by: `setpriv --reuid 65534 ...`. */
  readonly prefix?: readonly string[];
}

const entry = compiledEntry('cli/main.ts');
const startTimeoutMs = 30_000;

/** A real `isobar up` on a data directory of its own. */
export class RunningUp implements AsyncDisposable {
  readonly dataPath: string;
  readonly mountPath: string;
  readonly child: ChildProcess;
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
  #output = '';

  constructor(dataPath: string, mqttPort: number, options: RunningUpOptions) {
    this.dataPath = dataPath;
    this.mountPath = join(dataPath, 'mount');
    const { backend = 'dev-fuse', prefix = [] } = options;
    const [program, ...args] = [
      ...prefix,
      process.execPath,
      entry,
      'up',
      '--data-dir',
      dataPath,
      '--mqtt-port',
      String(mqttPort),
      '--fuse-backend',
      backend,
    ];
    this.child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.#output += chunk.toString();
      });
    }
    this.ended = new Promise((resolve) => {
      this.child.on('close', (code, signal) => {
        resolve(code ?? signal);
      });
    });
  }

  /** What it printed so far. */
  get output(): string {
    return this.#output;
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  file(name: string): string {
    return join(this.mountPath, 'unencrypted', name);
  }

  /** Another command against this instance. */
  isobar(...commandLine: readonly string[]): Promise<CommandEnd> {
    return runIsobarProcess([...commandLine, '--data-dir', this.dataPath]);
  }

  /** The process of a part; undefined while it is being restarted, or has just died. */
  async processOf(part: string): Promise<number | undefined> {
    const { stdout } = await this.isobar('status', '--json');
    const report = JSON.parse(stdout) as {
      readonly up: { readonly processes: readonly { name: string; pid: number | null }[] } | null;
    };
    const pid = report.up?.processes.find(({ name }) => name === part)?.pid ?? undefined;
    return pid !== undefined && isAlive(pid) ? pid : undefined;
  }

  /** The values of a KPI file's only column that the reader has, oldest first. */
  async values(file: string): Promise<readonly unknown[]> {
    const { stdout } = await this.isobar('query', `kpi/${file}/*`, '--limit', '100000', '--json');
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as { readonly value: unknown }).value);
  }

  /** What an `isobar up` that ended should not have left: empty when all is well. */
  leftovers(): readonly string[] {
    const runPath = join(this.dataPath, 'run');
    return [
      ...(isMountedAt(this.mountPath) ? ['the mount'] : []),
      ...(existsSync(this.mountPath) ? ['the mount point'] : []),
      ...(existsSync(runPath) ? readdirSync(runPath) : []),
      ...processesWith(this.dataPath).map((line) => `process ${line}`),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.hasEnded) this.child.kill('SIGTERM');
    await this.ended;
  }
}

/** Starts one without waiting for it to run. */
export async function launchUp(
  dataPath: string,
  options: RunningUpOptions = {},
): Promise<RunningUp> {
  return new RunningUp(dataPath, await freePort(), options);
}

/** Starts one and resolves when it says that it runs. */
export async function startUp(
  dataPath: string,
  options: RunningUpOptions = {},
): Promise<RunningUp> {
  const up = await launchUp(dataPath, options);
  await eventually(
    () => {
      if (up.hasEnded) throw new Error(`isobar up ended:\n${up.output}`);
      return up.output.includes('second terminal');
    },
    { timeoutMs: startTimeoutMs },
  );
  return up;
}

/** Runs `isobar` as a process of its own to its end. */
export function runIsobarProcess(commandLine: readonly string[]): Promise<CommandEnd> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [entry, ...commandLine],
      { maxBuffer: 2 ** 26 },
      (_error, stdout, stderr) => {
        resolve({ exitCode: child.exitCode ?? -1, stdout, stderr });
      },
    );
  });
}

export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Command lines that name `path`. */
function processesWith(path: string): readonly string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && isAlive(Number(name)))
    .flatMap((name) => {
      try {
        const commandLine = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return commandLine.includes(path) ? [`${name}: ${commandLine}`] : [];
      } catch {
        return [];
      }
    });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
