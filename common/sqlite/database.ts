import { closeSync, fchmodSync, openSync } from 'node:fs';

import Sqlite from 'better-sqlite3';

import { OperatingError, systemErrorCode } from '../runtime/operating-error.ts';

/** The only owner of `better-sqlite3`; everyone else imports these names. */
export type Database = Sqlite.Database;
export type Statement<Parameters extends unknown[] = unknown[], Row = unknown> = Sqlite.Statement<
  Parameters,
  Row
>;

/** A function that runs in one transaction, made once and called often. */
export type Transaction<Run extends (...parameters: never[]) => unknown> = Sqlite.Transaction<Run>;
/** What a commit survives: `FULL` a power cut, `NORMAL` a crash of the process, `OFF` nothing promised. */
export type Synchronous = 'FULL' | 'NORMAL' | 'OFF';

export interface OpenDatabaseOptions {
  readonly readonly?: boolean;
  readonly synchronous?: Synchronous;
  /** How long a statement waits for another connection's lock before SQLITE_BUSY. */
  readonly busyMaxMs?: number;
  /** Memory for pages of this connection; absent: SQLite's own default. */
  readonly cacheBytesMax?: number;
  /** Pages in the WAL after which a commit copies them into the database file. */
  readonly walAutoCheckpointPages?: number;
}

export type DatabaseErrorCode = 'database-open' | 'database-corrupt' | 'database-newer';

/** A database that can't be used; the message says what to do. */
export class DatabaseError extends OperatingError<DatabaseErrorCode> {
  override readonly name = 'DatabaseError';
}

/** SQLite's name for a database without a file. */
const inMemory = ':memory:';
/** Not by the umask: a measurement is nobody else's business. */
const privateMode = 0o600;
const busyMaxMsDefault = 1_000;

/**
 * Opens (and unless `readonly` creates, for its owner alone) an SQLite database in WAL mode. 64-bit integers come back as `bigint` only
 * from statements that ask for it with `safeIntegers()`.
 * @throws DatabaseError `database-open` when the file can't be opened or is no database.
 */
export function openDatabase(path: string, options: OpenDatabaseOptions = {}): Database {
  let database: Database | undefined;
  try {
    if (options.readonly !== true && path !== inMemory) createPrivately(path);
    database = new Sqlite(path, {
      readonly: options.readonly ?? false,
      timeout: options.busyMaxMs ?? busyMaxMsDefault,
    });
    if (options.cacheBytesMax !== undefined) {
      database.pragma(`cache_size = -${Math.ceil(options.cacheBytesMax / 1_024)}`);
    }
    if (options.readonly !== true) {
      database.pragma('journal_mode = WAL');
      database.pragma(`synchronous = ${options.synchronous ?? 'FULL'}`);
      database.pragma('foreign_keys = ON');
      if (options.walAutoCheckpointPages !== undefined) {
        database.pragma(`wal_autocheckpoint = ${options.walAutoCheckpointPages}`);
      }
    }
    return database;
  } catch (cause) {
    database?.close();
    throw new DatabaseError(
      isDatabaseCorrupt(cause) ? 'database-corrupt' : 'database-open',
      `cannot open database ${path}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

/** Makes an empty file, which SQLite takes for a new database and whose mode it gives to the files beside it. */
export function createPrivately(path: string): void {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'wx', privateMode);
  } catch {
    // It is there already; what else is wrong SQLite says better.
    return;
  }
  fchmodSync(descriptor, privateMode);
  closeSync(descriptor);
}

/** True for errors of a statement that another connection's lock, not the statement, brought about. */
export function isBusy(error: unknown): boolean {
  return systemErrorCode(error)?.startsWith('SQLITE_BUSY') === true;
}

/** True when the disk has no room or the size bound (`max_page_count`) is reached. */
export function isDatabaseFull(error: unknown): boolean {
  return systemErrorCode(error) === 'SQLITE_FULL';
}

/**
 * True when the disk refused, not the statement: it is full, read-only or broken, or another connection holds the lock.
 * The same statement may succeed later.
 */
export function isDiskRefusal(error: unknown): boolean {
  const code = systemErrorCode(error) ?? '';
  return diskRefusals.some((refusal) => code.startsWith(refusal));
}

const diskRefusals = [
  'SQLITE_FULL',
  'SQLITE_IOERR',
  'SQLITE_READONLY',
  'SQLITE_CANTOPEN',
  'SQLITE_BUSY',
] as const;

/** True when the file is damaged, or is no database at all. */
export function isDatabaseCorrupt(error: unknown): boolean {
  if (error instanceof DatabaseError) return error.code === 'database-corrupt';
  const code = systemErrorCode(error);
  return code === 'SQLITE_NOTADB' || code?.startsWith('SQLITE_CORRUPT') === true;
}

/** `name` as a quoted SQL identifier; any UTF-8 text without NUL is a valid name. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
