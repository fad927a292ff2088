import { accessSync, constants } from 'node:fs';

import { systemErrorCode } from '../../common/runtime/operating-error.ts';

/** Whether it was a disk that has become read-only: SQLite calls that an input/output error where the file was open before. */
export function isReadOnlyError(error: unknown, path: string): boolean {
  const code = systemErrorCode(error) ?? '';
  return (
    code.startsWith('SQLITE_READONLY') || (code.startsWith('SQLITE_IOERR') && isReadOnly(path))
  );
}

/** Whether the disk of `path` takes no writes; false for a file that is not there. */
export function isReadOnly(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return false;
  } catch (error) {
    return systemErrorCode(error) === 'EROFS';
  }
}
