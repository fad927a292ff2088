import { closeSync, fstatSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

import { makeDirectory } from '../../common/runtime/make-directory.ts';

export interface RotationBounds {
  /** A file that would grow beyond this is moved to `.1`, and so on. */
  readonly fileBytesMax: number;
  /** Files kept, the current one included; the oldest is dropped. */
  readonly filesMax: number;
}

export const rotationDefault: RotationBounds = { fileBytesMax: 8 * 1_024 * 1_024, filesMax: 3 };

/**
 * A log file of bounded size: at most `fileBytesMax * filesMax` (and one chunk) of disk. Appends to what a previous
 * run left. Writes are synchronous, so that the last words of a dying process are there.
 */
export class RotatingFile implements Disposable {
  readonly #path: string;
  readonly #bounds: RotationBounds;
  #descriptor: number;
  #sizeBytes: number;

  constructor(path: string, bounds: RotationBounds = rotationDefault) {
    makeDirectory(dirname(path));
    this.#path = path;
    this.#bounds = bounds;
    this.#descriptor = openSync(path, 'a', 0o640);
    this.#sizeBytes = fstatSync(this.#descriptor).size;
  }

  write(chunk: Uint8Array): void {
    const isFull = this.#sizeBytes + chunk.byteLength > this.#bounds.fileBytesMax;
    if (isFull && this.#sizeBytes > 0) this.#rotate();
    writeSync(this.#descriptor, chunk);
    this.#sizeBytes += chunk.byteLength;
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }

  #rotate(): void {
    closeSync(this.#descriptor);
    const { filesMax } = this.#bounds;
    const nameOf = (index: number): string => (index === 0 ? this.#path : `${this.#path}.${index}`);
    rmSync(nameOf(filesMax - 1), { force: true });
    for (let index = filesMax - 2; index >= 0; index -= 1) {
      try {
        renameSync(nameOf(index), nameOf(index + 1));
      } catch {
        // Fewer files than allowed so far.
      }
    }
    this.#descriptor = openSync(this.#path, 'a', 0o640);
    this.#sizeBytes = 0;
  }
}
