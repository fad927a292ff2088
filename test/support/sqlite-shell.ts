import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';

import { eventually } from './eventually.ts';
import type { FoundProgram } from './test-packages.ts';

/** An operator's `sqlite3` on a database, as a process of its own; ended with the test. */
export class SqliteShell implements Disposable {
  readonly #child: ChildProcessWithoutNullStreams;
  #output = '';
  #questionCount = 0;

  constructor(program: FoundProgram, databasePath: string) {
    this.#child = spawn(program.path, ['-batch', databasePath], {
      env: { ...process.env, ...program.environment },
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.#output += chunk.toString();
      });
    }
  }

  /** What the statements print. */
  async ask(statements: string): Promise<string> {
    this.#questionCount += 1;
    const end = `end of ${this.#questionCount}\n`;
    this.#output = '';
    this.#child.stdin.write(`${statements}\n.print ${end}`);
    await eventually(() => this.#output.endsWith(end), { timeoutMs: 10_000 });
    return this.#output.slice(0, -end.length).trim();
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}
