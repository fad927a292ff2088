import type { HeaderMode } from '../../common/csv/csv-labels.ts';
import type { Synchronous } from '../../common/sqlite/database.ts';

/** How the operator says that the first line of some files holds labels, or does not. */
export interface HeaderRule {
  /** Over paths below `unencrypted/`: `*` within a directory, `**` over any number of them. The first match decides. */
  readonly pattern: string;
  readonly mode: HeaderMode;
}

/** Every bound and time of the store. {@link defaultStoreOptions} has the usual values. */
export interface StoreOptions {
  /** Holds `encrypted.db`, `unencrypted.db` and their side files; must exist. */
  readonly directory: string;
  readonly synchronous: Synchronous;
  /** How long a save waits for another program's lock on the database before EAGAIN. */
  readonly busyMaxMs: number;
  /** A committed save is published this long after its last FLUSH when neither RELEASE nor fsync came. */
  readonly publishHoldMs: number;
  /** A new file made with O_EXCL is published no sooner, as a rename may follow. */
  readonly newNameHoldMs: number;
  /** How long a held save may keep later, published rows from the host before it is moved aside. */
  readonly overtakeGraceMs: number;
  /** Content beyond it is EFBIG; a logger is compacted. */
  readonly fileBytesMax: number;
  /** Columns of one table, over all its saves; more is EINVAL. At most 1,900 (SQLite's bound is 2,000). */
  readonly columnsMax: number;
  /** Characters of one field; more is EINVAL. */
  readonly fieldCharactersMax: number;
  /** Tables of one database; a save that needs one more is ENOSPC. Unlinked files keep theirs. */
  readonly tablesMax: number;
  /** Bytes of refused saves that are kept for a look; the oldest go first. */
  readonly quarantineBytesMax: number;
  readonly quarantineAgeMaxMs: number;
  /** One database with its WAL. Acknowledged rows go first, then the oldest others, counted as lost; then ENOSPC. */
  readonly databaseBytesMax: number;
  /** Part of {@link databaseBytesMax} that the WAL may take; beyond it, while a reader pins it, saves get EAGAIN. */
  readonly walBytesMax: number;
  /** WAL bytes after which it is copied into the database between two batches, and not only when idle. */
  readonly checkpointBytes: number;
  /** The last texts of files, kept to see what a save adds; the oldest go first and are read again when needed. */
  readonly textCacheCharactersMax: number;
  /** Prepared INSERTs kept; all are dropped when there are more. */
  readonly statementsMax: number;
  /** Saves without a waiter (a dirty RELEASE) that wait for a lock to go away; more are dropped and counted. */
  readonly retriesMax: number;
  readonly headerRules: readonly HeaderRule[];
  /** Names this machine so that a cloned disk is noticed (DMI product UUID); null when unknown. */
  readonly machineId: string | null;
}

const mebibyte = 2 ** 20;

export const defaultStoreOptions: Omit<StoreOptions, 'directory'> = {
  synchronous: 'FULL',
  busyMaxMs: 250,
  publishHoldMs: 1_000,
  newNameHoldMs: 300,
  overtakeGraceMs: 3,
  fileBytesMax: mebibyte,
  columnsMax: 500,
  fieldCharactersMax: 65_536,
  tablesMax: 10_000,
  quarantineBytesMax: 4 * mebibyte,
  quarantineAgeMaxMs: 7 * 24 * 3_600_000,
  databaseBytesMax: 512 * mebibyte,
  walBytesMax: 64 * mebibyte,
  checkpointBytes: 4 * mebibyte,
  textCacheCharactersMax: 4 * mebibyte,
  statementsMax: 2_000,
  retriesMax: 1_000,
  headerRules: [],
  machineId: null,
};
