import { join } from 'node:path';

import type { Log } from '../runtime/log.ts';
import { makeDirectory } from '../runtime/make-directory.ts';
import { OperatingError } from '../runtime/operating-error.ts';
import { tryToLockFile, type FileLock } from './file-lock.ts';

/** Referred to for as long as the process lives: a database that nothing refers to is closed by the garbage collector. */
const held: FileLock[] = [];

/**
 * Keeps `directory`, which is made when it is missing, for this process of the program `name` until the process ends, in whatever
 * way. A disk that can't be written has no lock: whoever can work from it all the same goes on.
 *
 * @throws OperatingError `already-running`, `directory-unusable`
 */
export function lockDataDirectory(directory: string, name: string, log: Log): void {
  makeDirectory(directory, 0o700);
  const path = join(directory, `${name}.lock`);
  let lock: FileLock | undefined;
  try {
    lock = tryToLockFile(path);
  } catch (error) {
    log.warn('data-directory-not-locked', { path, cause: String(error) });
    return;
  }
  if (lock === undefined) {
    throw new OperatingError(
      'already-running',
      `another ${name} works in ${directory}: stop it first, or give this one another data directory`,
    );
  }
  held.push(lock);
}
