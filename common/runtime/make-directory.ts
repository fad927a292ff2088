import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

import { OperatingError, systemErrorCode } from './operating-error.ts';

/** Others (a full disk, a fault) may pass without anyone changing anything. */
const setupCodes = new Set(['EACCES', 'EEXIST', 'ENOENT', 'ENOTDIR', 'EPERM', 'EROFS']);

/**
 * Makes the directory `path`, and those above it that are missing, with `mode`; one that is there stays as it is.
 * Node's own `recursive` is not used: it tries for ever where a file system answers ENOENT to mkdir(2), as /proc does.
 * @throws OperatingError `directory-unusable`
 */
export function makeDirectory(path: string, mode = 0o777): void {
  try {
    makeMissing(path, mode);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `the directory ${path} can't be made (${reason}): choose another one, or make it for this user`;
    const needsSetup = setupCodes.has(systemErrorCode(cause) ?? '');
    throw new OperatingError('directory-unusable', message, { cause, needsSetup });
  }
}

/** Goes up by one level at each call, so as many times as the path has levels at most. */
function makeMissing(path: string, mode: number): void {
  if (isDirectory(path)) return;
  const parent = dirname(path);
  if (parent !== path) makeMissing(parent, mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Another process may have made it in between.
    if (systemErrorCode(error) !== 'EEXIST' || !isDirectory(path)) throw error;
  }
}

/** False also for what can't be looked at: mkdir says why, better than stat. */
function isDirectory(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch {
    return false;
  }
}
