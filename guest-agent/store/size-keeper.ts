import { statSync } from 'node:fs';

import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { systemErrorCode } from '../../common/runtime/operating-error.ts';
import { type Database, isBusy, quoteIdentifier } from '../../common/sqlite/database.ts';
import type { AreaState } from './area-state.ts';
import { noteProgress } from './database-identity.ts';
import type { StoreOptions } from './store-options.ts';

/** Rows that the size bound cost before the host had them. */
export interface LostRows {
  readonly count: number;
  readonly fromRowId: number;
  readonly throughRowId: number;
}

/** In how many steps the oldest rows go; more steps delete less than is needed at the price of more statements. */
const pruneSteps = 32;
/** Share of the bound that a pruning leaves free. */
const pruneToRatio = 0.9;
/** Pages that are kept back for `/files`, `/state` and the like, so that a full database can still be tidied up. */
const reservePages = 64;
/** What a save of a few bytes adds to the WAL, roughly: table, file and state. */
const pagesPerSave = 3;
const pageBytesUsual = 4_096;
/** How far the side file may fall behind under load; a roll-back within it is left to the host to notice. */
const noteIntervalMs = 10_000;

/**
 * Keeps one database within its bound and its WAL short. The database file never shrinks; what rows leave free is used
 * again. The file's bound is SQLite's max_page_count; the WAL has its own part of the bound.
 */
export class SizeKeeper {
  readonly #state: AreaState;
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: StoreOptions;
  readonly #pagesMax: number;
  readonly #pageBytes: number;
  readonly #walPath: string;
  #checkpointedCommitCount = 0;
  #walBytesSeen = 0;
  #writtenBytes = 0;
  #notedAtMs = 0;
  #usedBytes = 0;

  constructor(
    state: AreaState,
    deps: { readonly clock: Clock; readonly log: Log },
    options: StoreOptions,
  ) {
    this.#state = state;
    this.#database = state.database;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    this.#pageBytes = Number(this.#database.pragma('page_size', { simple: true }));
    this.#pagesMax = Math.max(
      reservePages * 2,
      Math.floor((options.databaseBytesMax - options.walBytesMax) / this.#pageBytes),
    );
    this.#walPath = `${this.#database.name}-wal`;
    this.#database.pragma(`max_page_count = ${this.#pagesMax}`);
    this.#look();
  }

  /** Bytes in use, as of the last checkpoint, with what was written since. */
  get storedBytes(): number {
    return this.#usedBytes + this.#walBytesSeen + this.#writtenBytes;
  }

  /** True while a reader pins so much WAL that saves must wait for it. */
  isWalFull(): boolean {
    if (this.#walBytesSeen < this.#options.walBytesMax) return false;
    this.#checkpoint('TRUNCATE', 0);
    return this.#walBytesSeen >= this.#options.walBytesMax;
  }

  /** Counts what a save writes. Its row, its file and the pages that hold them all go through the WAL. */
  noteWritten(contentBytes: number): void {
    this.#writtenBytes += pagesPerSave * pageBytesUsual + 2 * contentBytes;
  }

  /** Copies the WAL into the database when much was written. Between two batches only. */
  afterReplies(): void {
    if (this.#writtenBytes < this.#options.checkpointBytes) return;
    this.#checkpoint('PASSIVE', noteIntervalMs);
  }

  /**
   * When nothing else is to do. The WAL keeps its length, unless that is unusual: it is written again from its start, and
   * a file that does not grow is cheaper to sync.
   */
  checkpointIdle(): void {
    if (this.#checkpointedCommitCount === this.#state.commitCount) return;
    const isLong = this.#walBytesSeen > 2 * this.#options.checkpointBytes;
    this.#checkpoint(isLong ? 'TRUNCATE' : 'PASSIVE', 0);
  }

  /**
   * Copies what can be copied, waiting for nobody, and notes how far the database has come unless that was done less than
   * `noteAfterMs` ago. A disk that refuses is no failure of anyone's save: it is logged and tried again later.
   */
  #checkpoint(mode: 'PASSIVE' | 'TRUNCATE', noteAfterMs: number): void {
    this.#writtenBytes = 0;
    try {
      this.#copyWal(mode);
      this.#look();
      this.#checkpointedCommitCount = this.#state.commitCount;
      // Two fsyncs that nothing depends on at once.
      const nowMs = this.#clock.monotonicMs();
      if (nowMs - this.#notedAtMs < noteAfterMs) return;
      this.#notedAtMs = nowMs;
      noteProgress(this.#database, this.#state.storedProgress);
    } catch (error) {
      this.#log.warn('store-upkeep-failed', {
        area: this.#state.area,
        code: systemErrorCode(error) ?? null,
        error: String(error),
      });
    } finally {
      this.#walBytesSeen = walBytes(this.#walPath);
    }
  }

  #look(): void {
    this.#usedBytes = this.#usedPages() * this.#pageBytes;
    this.#walBytesSeen = walBytes(this.#walPath);
  }

  #copyWal(mode: 'PASSIVE' | 'TRUNCATE'): void {
    this.#database.pragma('busy_timeout = 0');
    try {
      this.#database.pragma(`wal_checkpoint(${mode})`);
    } catch (error) {
      if (!isBusy(error)) throw error;
    } finally {
      this.#database.pragma(`busy_timeout = ${this.#options.busyMaxMs}`);
    }
  }

  /** True when rows should go before they must. */
  isNearlyFull(): boolean {
    return this.#usedPages() > this.#pagesMax - reservePages;
  }

  /**
   * Deletes the oldest rows until a tenth of the bound is free: acknowledged ones first, then those that the host has
   * not had, which it is told of through `/lost`. A transaction of its own. Returns undefined when nothing could go.
   */
  prune(acknowledgedRowId: number): { readonly lost: LostRows | null } | undefined {
    const state = this.#state;
    const frontier = state.frontier();
    let deletedCount = 0;
    const lost = { count: 0, fromRowId: 0, throughRowId: 0 };
    // Deleting may need a few pages of its own.
    this.#database.pragma(`max_page_count = ${this.#pagesMax + reservePages}`);
    try {
      state.begin();
      const oldest = this.#oldestRowId();
      const isEnough = (): boolean => this.#usedPages() <= this.#pagesMax * pruneToRatio;
      for (const cut of cuts(oldest, Math.min(acknowledgedRowId, frontier))) {
        if (isEnough()) break;
        deletedCount += this.#deleteThrough(cut);
      }
      const from = Math.max(oldest, acknowledgedRowId + 1);
      for (const cut of cuts(from, frontier)) {
        if (isEnough()) break;
        lost.count += this.#deleteThrough(cut);
        lost.fromRowId = from;
        lost.throughRowId = cut;
      }
      if (lost.count > 0) this.#recordLost(lost);
      state.commit();
    } catch (error) {
      state.rollBack();
      throw error;
    } finally {
      this.#database.pragma(`max_page_count = ${this.#pagesMax}`);
    }
    this.#checkpoint('TRUNCATE', 0);
    if (deletedCount + lost.count === 0) return undefined;
    return { lost: lost.count > 0 ? lost : null };
  }

  #deleteThrough(rowId: number): number {
    let count = 0;
    for (const table of this.#state.tables.names()) {
      count += this.#database
        .prepare(`DELETE FROM ${quoteIdentifier(table)} WHERE row_id <= ?`)
        .run(rowId).changes;
    }
    // The layout in force at the cut is still that of the rows behind it.
    this.#database
      .prepare(
        `DELETE FROM "/layouts" WHERE first_row_id < (
           SELECT max(first_row_id) FROM "/layouts" AS later
           WHERE later.table_name = "/layouts".table_name AND later.first_row_id <= ?)`,
      )
      .run(rowId);
    return count;
  }

  #recordLost(lost: LostRows): void {
    this.#database
      .prepare(
        `INSERT INTO "/lost" (from_row_id, through_row_id, row_count, lost_at_us, reason)
         VALUES (?, ?, ?, ?, 'database-full')`,
      )
      .run(lost.fromRowId, lost.throughRowId, lost.count, this.#clock.wallUs());
  }

  #oldestRowId(): number {
    let oldest = this.#state.lastRowId + 1;
    for (const table of this.#state.tables.names()) {
      const { first } = this.#database
        .prepare<[], { first: number | null }>(
          `SELECT min(row_id) AS first FROM ${quoteIdentifier(table)}`,
        )
        .get() ?? { first: null };
      if (first !== null) oldest = Math.min(oldest, first);
    }
    return oldest;
  }

  #usedPages(): number {
    const count = Number(this.#database.pragma('page_count', { simple: true }));
    return count - Number(this.#database.pragma('freelist_count', { simple: true }));
  }
}

function walBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Row ids that divide `from` to `through` into steps, ending with `through`; none when the range is empty. */
function cuts(from: number, through: number): readonly number[] {
  if (through < from) return [];
  const step = Math.max(1, Math.ceil((through - from + 1) / pruneSteps));
  const result: number[] = [];
  for (let cut = from + step - 1; cut < through; cut += step) result.push(cut);
  return [...result, through];
}
