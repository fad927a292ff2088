import { existsSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import {
  DatabaseError,
  isDatabaseCorrupt,
  openDatabase,
  type Database,
  type OpenDatabaseOptions,
} from './database.ts';

/** Up to here every page is looked at when a program starts; it takes some 0.2 s. */
const checkedBytesMax = 64 * 1_024 * 1_024;
const setAsideInfix = '.corrupt-';

/**
 * Opens a database whose content a neighbour has as well. A truncated or corrupted file is renamed to `NAME.corrupt-MS`,
 * with the files beside it, and an empty database takes its place. Damage is looked for in files up to 64 MiB, and in
 * those that {@link crashSuspecting} named; in others a truncation is found, and the rest when it is read.
 * @throws DatabaseError as {@link openDatabase} and `prepare` for everything else.
 */
export function openSoundDatabase(
  deps: { readonly clock: Clock; readonly log: Log },
  path: string,
  options: OpenDatabaseOptions,
  prepare: (database: Database) => void,
): Database {
  try {
    return openChecked(path, options, prepare);
  } catch (cause) {
    if (!isDatabaseCorrupt(cause)) throw cause;
    const to = `${path}${setAsideInfix}${Math.floor(deps.clock.wallUs() / 1_000)}`;
    for (const suffix of ['', '-wal', '-shm']) {
      if (existsSync(path + suffix)) renameSync(path + suffix, to + suffix);
    }
    rmSync(suspectPath(path), { force: true });
    deps.log.error('database-set-aside', { path, setAsideAs: to, cause: String(cause) });
    return openChecked(path, options, prepare);
  }
}

/**
 * For damage that a statement meets: the next start looks at every page, and this process ends as by an uncaught error,
 * whatever its parts have under way; whoever runs it starts it again.
 */
export function crashSuspecting(path: string): (cause: unknown) => void {
  return (cause) => {
    writeFileSync(suspectPath(path), '');
    setImmediate(() => {
      throw cause;
    });
  };
}

/** Names of files that were set aside in the directory of a database; they stay until someone removes them. */
export function setAsideFiles(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => /\.corrupt-\d+$/.test(name))
    .toSorted();
}

function openChecked(
  path: string,
  options: OpenDatabaseOptions,
  prepare: (database: Database) => void,
): Database {
  const database = openDatabase(path, options);
  try {
    checkPages(database, path);
    prepare(database);
    return database;
  } catch (cause) {
    database.close();
    throw cause;
  }
}

function checkPages(database: Database, path: string): void {
  const isSuspect = existsSync(suspectPath(path));
  const pages = Number(database.pragma('page_count', { simple: true }));
  const pageBytes = Number(database.pragma('page_size', { simple: true }));
  if (!isSuspect && pages * pageBytes > checkedBytesMax) {
    if (isTruncated(database, path, pages * pageBytes)) throw corrupt(path, 'it is truncated');
    return;
  }
  const answer = String(database.pragma('quick_check(1)', { simple: true }));
  if (answer !== 'ok') throw corrupt(path, answer);
  rmSync(suspectPath(path), { force: true });
}

/** Pages may still be in the WAL alone: then nothing can be said. */
function isTruncated(database: Database, path: string, bytes: number): boolean {
  const walPath = `${path}-wal`;
  if (existsSync(walPath) && statSync(walPath).size > 0) {
    database.pragma('wal_checkpoint(TRUNCATE)');
    if (statSync(walPath).size > 0) return false;
  }
  return statSync(path).size < bytes;
}

function corrupt(path: string, what: string): DatabaseError {
  return new DatabaseError('database-corrupt', `database ${path} is damaged: ${what}`);
}

function suspectPath(path: string): string {
  return join(dirname(path), `${basename(path)}.suspect`);
}
