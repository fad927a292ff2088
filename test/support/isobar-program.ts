import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

import { compiledEntry } from '../../common/runtime/package-root.ts';

const entry = compiledEntry('cli/main.ts');
const commandMaxMs = 30_000;

export interface ProgramResult {
  readonly exitCode: number | null;
  readonly output: string;
  readonly remarks: string;
}

/** The real command line, as a process of its own that ends. */
export function isobar(...commandLine: readonly string[]): ProgramResult {
  const result = spawnSync(process.execPath, [entry, ...commandLine], {
    encoding: 'utf8',
    timeout: commandMaxMs,
  });
  return { exitCode: result.status, output: result.stdout, remarks: result.stderr };
}

/** The real command line, as a process that runs until it is told. */
export class IsobarProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  #log = '';

  constructor(...commandLine: readonly string[]) {
    const child = spawn(process.execPath, [entry, ...commandLine], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    this.#child = child;
  }

  /** What it logged so far. */
  get log(): string {
    return this.#log;
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end('SIGKILL');
  }
}
