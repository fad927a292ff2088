import Sqlite from 'better-sqlite3';

import { createPrivately, DatabaseError, isBusy } from './database.ts';

/** A lock that is held until it is released, until nothing refers to it, or until its process ends in whatever way. */
export interface FileLock {
  release(): void;
}

/**
 * Takes the lock of the file at `path`, which is made when it is missing, stays empty and is never removed: who holds it is
 * known to the kernel alone, by an exclusive transaction of SQLite. Excludes other processes and other holders in this one.
 * Returns undefined at once when it is held.
 * @throws DatabaseError `database-open` when the file can't be opened, or holds something else
 */
export function tryToLockFile(path: string): FileLock | undefined {
  let database: Sqlite.Database | undefined;
  try {
    createPrivately(path);
    database = new Sqlite(path, { timeout: 0 });
    // Nothing is written, so there is nothing to keep a file for.
    database.pragma('journal_mode = MEMORY');
    database.exec('BEGIN EXCLUSIVE');
  } catch (cause) {
    database?.close();
    if (isBusy(cause)) return undefined;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `the lock file ${path} can't be used (${reason}): remove it if it is not empty`;
    throw new DatabaseError('database-open', message, { cause });
  }
  const held = database;
  return {
    release: () => {
      held.close();
    },
  };
}
