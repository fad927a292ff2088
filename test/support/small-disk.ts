import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { systemErrorCode } from '../../common/runtime/operating-error.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const fillerBytes = 64 * 2 ** 20;

/** A tmpfs of its own, which only root may mount; lazily unmounted at the end, as a process may still use it. */
export class SmallDisk implements Disposable {
  readonly #directory = temporaryDirectory();
  readonly #filler = join(this.#directory.path, 'filler');
  readonly path = this.#directory.path;

  /** `size` as mount(8) has it, `3m` for instance; at most 64 MiB. */
  constructor(size: string) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'isobar-test', this.path]);
  }

  /** Leaves no more than a page free. */
  fill(): void {
    try {
      writeFileSync(this.#filler, Buffer.alloc(fillerBytes));
    } catch (error) {
      if (systemErrorCode(error) === 'ENOSPC') return;
      throw error;
    }
    throw new Error(`${this.path} is larger than ${fillerBytes} bytes`);
  }

  /** Room again. */
  empty(): void {
    rmSync(this.#filler, { force: true });
  }

  [Symbol.dispose](): void {
    execFileSync('umount', ['-l', this.path]);
    this.#directory[Symbol.dispose]();
  }
}
