import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

import type { Random } from '../../common/runtime/random.ts';
import type { Database } from '../../common/sqlite/database.ts';
import { fileIdentity } from '../../common/sqlite/file-identity.ts';
import type { ReachCrashPoint } from './crash-point.ts';

/** Why a database got the generation that it has. */
export type GenerationReason =
  | 'created'
  /** The database is here without its side file, or with that of another: it was copied back. */
  | 'restored'
  /** The file or the machine is another one. */
  | 'cloned'
  /** The side file, or the host, has seen later commits than the database has. */
  | 'rolled-back';

export interface DatabaseIdentity {
  /** 16 random bytes as hex. (generation, row_id) never names two rows. */
  readonly generation: string;
  readonly reason: GenerationReason;
  /** Rows up to this id were there when the generation began. */
  readonly afterRowId: number;
  readonly lastRowId: number;
  readonly commitCount: number;
  readonly acknowledgedRowId: number;
}

/** What the side file beside the database says; written after the database, so it is never ahead of it. */
interface SideFile {
  readonly instance: string;
  readonly commitCount: number;
  readonly lastRowId: number;
}

interface StateRow {
  readonly generation: string;
  readonly generation_reason: GenerationReason;
  readonly generation_after_row_id: number;
  readonly instance: string;
  readonly inode: string;
  readonly machine_id: string | null;
  readonly last_row_id: number;
  readonly commit_count: number;
  readonly acknowledged_row_id: number;
}

/**
 * Decides at start whether this database is the one that was written last, and gives it a new generation when not.
 *
 *   same file, machine, instance, and commit count not behind the side file: same generation
 *   no state at all: created;  side file missing or of another instance: restored;
 *   other file or machine: cloned;  commit count behind the side file: rolled-back
 *
 * Blind to a roll-back of database and side file together (a snapshot of the whole disk) within one machine: that
 * shows when the host acknowledges a row that does not exist (see StoreEngine.acknowledge).
 */
export function establishIdentity(
  database: Database,
  deps: { readonly random: Random; readonly reachCrashPoint: ReachCrashPoint },
  options: { readonly machineId: string | null },
): DatabaseIdentity {
  const inode = fileIdentity(database.name);
  const row = database.prepare<[], StateRow>('SELECT * FROM "/state"').get();
  const side = readSideFile(database.name);
  const reason = row === undefined ? 'created' : changeOf(row, side, inode, options.machineId);
  if (row !== undefined && reason === undefined) return toIdentity(row);
  const lastRowId = Math.max(row?.last_row_id ?? 0, side?.lastRowId ?? 0);
  const next: StateRow = {
    generation: hex(deps.random, 16),
    generation_reason: reason ?? 'created',
    generation_after_row_id: lastRowId,
    instance: hex(deps.random, 16),
    inode,
    machine_id: options.machineId,
    last_row_id: lastRowId,
    commit_count: (row?.commit_count ?? 0) + 1,
    acknowledged_row_id: 0,
  };
  database
    .prepare(
      `INSERT OR REPLACE INTO "/state" VALUES (1, @generation, @generation_reason, @generation_after_row_id,
       @instance, @inode, @machine_id, @last_row_id, @commit_count, @acknowledged_row_id)`,
    )
    .run(next);
  deps.reachCrashPoint('after-identity-commit');
  writeSideFile(database.name, {
    instance: next.instance,
    commitCount: next.commit_count,
    lastRowId,
  });
  return toIdentity(next);
}

/**
 * Notes durably how far the database has come. Called after a checkpoint, when what it says is on the disk; it need not
 * be called for each commit, it only narrows what a roll-back can hide.
 */
export function noteProgress(
  database: Database,
  progress: { readonly commitCount: number; readonly lastRowId: number },
): void {
  const row = database.prepare<[], StateRow>('SELECT * FROM "/state"').get();
  if (row === undefined) return;
  const { commitCount, lastRowId } = progress;
  writeSideFile(database.name, { instance: row.instance, commitCount, lastRowId });
}

function changeOf(
  row: StateRow,
  side: SideFile | undefined,
  inode: string,
  machineId: string | null,
): GenerationReason | undefined {
  if (row.inode !== inode) return 'cloned';
  const isOtherMachine = row.machine_id !== null && row.machine_id !== machineId;
  if (machineId !== null && isOtherMachine) return 'cloned';
  if (side === undefined || side.instance !== row.instance) return 'restored';
  if (row.commit_count < side.commitCount) return 'rolled-back';
  return undefined;
}

function toIdentity(row: StateRow): DatabaseIdentity {
  return {
    generation: row.generation,
    reason: row.generation_reason,
    afterRowId: row.generation_after_row_id,
    lastRowId: row.last_row_id,
    commitCount: row.commit_count,
    acknowledgedRowId: row.acknowledged_row_id,
  };
}

function readSideFile(databasePath: string): SideFile | undefined {
  try {
    const side: unknown = JSON.parse(readFileSync(sideFilePath(databasePath), 'utf8'));
    return isSideFile(side) ? side : undefined;
  } catch {
    // Missing or damaged is the same: it can't vouch for the database.
    return undefined;
  }
}

/** By hand: a schema library would cost the store thread as much memory as all the rest of it. */
function isSideFile(value: unknown): value is SideFile {
  return (
    typeof value === 'object' &&
    value !== null &&
    'instance' in value &&
    typeof value.instance === 'string' &&
    'commitCount' in value &&
    Number.isSafeInteger(value.commitCount) &&
    'lastRowId' in value &&
    Number.isSafeInteger(value.lastRowId)
  );
}

function writeSideFile(databasePath: string, side: SideFile): void {
  const path = sideFilePath(databasePath);
  const descriptor = openSync(`${path}.new`, 'w', 0o600);
  try {
    writeSync(descriptor, JSON.stringify(side));
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(`${path}.new`, path);
  const directory = openSync(dirname(path), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

function sideFilePath(databasePath: string): string {
  return `${databasePath}-instance`;
}

function hex(random: Random, byteCount: number): string {
  return Buffer.from(random.bytes(byteCount)).toString('hex');
}
