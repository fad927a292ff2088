import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { compileC } from './programs/compile-c.ts';
import { temporaryDirectory } from './temporary-directory.ts';

/** See programs/c/faulty-disk.c. */
export type DiskFault = 'read-only' | 'broken' | 'die';

/** A directory whose files fail on request for processes that run with `environment`. */
export class FaultyDisk implements Disposable {
  readonly #directory = temporaryDirectory();
  readonly #flag = join(this.#directory.path, 'fault');
  readonly path = this.#directory.path;
  readonly environment: Readonly<Record<string, string>>;

  private constructor(library: string) {
    this.environment = {
      LD_PRELOAD: library,
      FAULTY_DISK_PATH: this.path,
      FAULTY_DISK_FLAG: this.#flag,
    };
  }

  static async make(): Promise<FaultyDisk> {
    const flags = ['-shared', '-fPIC', '-ldl'];
    return new FaultyDisk(await compileC('test/support/programs/c/faulty-disk.c', flags));
  }

  fail(fault: DiskFault): void {
    writeFileSync(this.#flag, fault);
  }

  mend(): void {
    rmSync(this.#flag, { force: true });
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}
