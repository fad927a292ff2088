import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { compileC } from './programs/compile-c.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const stepBytes = 8;

/** A wall clock that a test sets, for processes that run with `environment`; see programs/c/stepped-clock.c. */
export class SteppedClock implements Disposable {
  readonly #directory = temporaryDirectory();
  readonly #path = join(this.#directory.path, 'step');
  readonly environment: Readonly<Record<string, string>>;

  private constructor(library: string) {
    writeFileSync(this.#path, Buffer.alloc(stepBytes));
    this.environment = { LD_PRELOAD: library, STEPPED_CLOCK_FILE: this.#path };
  }

  static async make(): Promise<SteppedClock> {
    const flags = ['-shared', '-fPIC', '-ldl'];
    return new SteppedClock(await compileC('test/support/programs/c/stepped-clock.c', flags));
  }

  /** From now on the processes' clock is `minutes` ahead of the machine's; below zero: behind. */
  set(minutes: number): void {
    const step = Buffer.alloc(stepBytes);
    step.writeBigInt64LE(BigInt(minutes) * 60_000_000n);
    const file = openSync(this.#path, 'r+');
    writeSync(file, step, 0, stepBytes, 0);
    closeSync(file);
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}
