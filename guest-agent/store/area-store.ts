import { constants } from 'node:os';
import { join } from 'node:path';

import type { Area } from '../../common/channel/area.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { systemErrorCode } from '../../common/runtime/operating-error.ts';
import type { Random } from '../../common/runtime/random.ts';
import { isBusy, isDatabaseFull, openDatabase } from '../../common/sqlite/database.ts';
import { migrate } from '../../common/sqlite/migrate.ts';
import { AreaState } from './area-state.ts';
import type { ReachCrashPoint } from './crash-point.ts';
import { type DatabaseIdentity, establishIdentity } from './database-identity.ts';
import { decodeRows, OvertakeWatch } from './held-saves.ts';
import { isReadOnly, isReadOnlyError } from './read-only-disk.ts';
import { opaqueRow } from './refusal.ts';
import { RequestApplier } from './request-applier.ts';
import { databaseFileName, storeMigrations } from './schema.ts';
import { type LostRows, SizeKeeper } from './size-keeper.ts';
import type { StoreOptions } from './store-options.ts';
import type { StoreOutcome, StoreRequest } from './store-request.ts';

const { EAGAIN, EIO, ENOSPC, EROFS } = constants.errno;
/** A timer whose transaction met a lock is tried again after this. */
const busyRetryMs = 50;
/** How often a disk that was read-only at the start is looked at. */
const readOnlyLookMs = 1_000;

export interface StoreDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly reachCrashPoint: ReachCrashPoint;
}

/** What an area counts since the start. */
export interface AreaCounters {
  saves: number;
  refused: number;
  busy: number;
  full: number;
  failed: number;
  overtaken: number;
  droppedRetries: number;
  lostRows: number;
}

/** Saves touch the last page of a few tables; the rest is the kernel's to cache. */
const writerCacheBytesMax = 2 ** 21;

/**
 * One area's database: batches, timers, pruning. A batch is one transaction; when it fails as a whole, each of its
 * requests gets one of its own, so that none fails by another's fault. (A savepoint for each request would cost every
 * good batch two statements a save, and would not survive SQLITE_FULL, which may end the whole transaction.)
 */
export class AreaStore {
  readonly counters: AreaCounters = {
    saves: 0,
    refused: 0,
    busy: 0,
    full: 0,
    failed: 0,
    overtaken: 0,
    droppedRetries: 0,
    lostRows: 0,
  };
  readonly state: AreaState;
  readonly #deps: StoreDeps;
  readonly #options: StoreOptions;
  readonly #applier: RequestApplier;
  readonly #size: SizeKeeper;
  readonly #overtakes = new OvertakeWatch();
  /** Its connection stays without a right to write, also when the disk can be written again. */
  readonly #openedReadOnly: boolean;
  #identity: DatabaseIdentity;
  /** Requests that nobody waits for and that met a lock; they go before the next batch. */
  #retries: StoreRequest[] = [];
  #lost: LostRows[] = [];
  #hasCommitted = false;

  /** Opens, migrates and recovers: what was held is published. Throws DatabaseError. */
  constructor(area: Area, deps: StoreDeps, options: StoreOptions) {
    this.#deps = deps;
    this.#options = options;
    const path = join(options.directory, databaseFileName(area));
    this.#openedReadOnly = isReadOnly(path);
    const database = openDatabase(path, {
      synchronous: options.synchronous,
      busyMaxMs: options.busyMaxMs,
      walAutoCheckpointPages: 0,
      cacheBytesMax: writerCacheBytesMax,
    });
    try {
      migrate(database, storeMigrations);
      this.#identity = establishIdentity(database, deps, options);
      this.state = new AreaState(area, database, this.#identity, options, deps.reachCrashPoint);
      this.#applier = new RequestApplier(this.state, deps, options);
      this.#size = new SizeKeeper(this.state, deps, options);
      this.#recover();
    } catch (error) {
      database.close();
      throw error;
    }
  }

  get identity(): DatabaseIdentity {
    return this.#identity;
  }

  get acknowledgedRowId(): number {
    return this.state.acknowledgedRowId;
  }

  get storedBytes(): number {
    return this.#size.storedBytes;
  }

  /** Rows lost to the size bound since the last call. */
  takeLost(): readonly LostRows[] {
    const lost = this.#lost;
    this.#lost = [];
    return lost;
  }

  /** Applies `requests` durably; one outcome each, in order. Never throws for what a request or the disk does. */
  apply(requests: readonly StoreRequest[]): readonly StoreOutcome[] {
    const retries = this.#retries;
    this.#retries = [];
    const all = retries.length === 0 ? requests : [...retries, ...requests];
    if (this.#size.isWalFull()) {
      return this.#fail(all, -EAGAIN).slice(retries.length);
    }
    const failure = this.#tryApply(all);
    if (Array.isArray(failure)) return failure.slice(retries.length);
    if (isBusy(failure.error)) return this.#fail(all, -EAGAIN).slice(retries.length);
    if (isDatabaseFull(failure.error)) this.#makeRoom();
    return all.map((request) => this.#applyAlone(request)).slice(retries.length);
  }

  /**
   * Publishes what is due, moves aside what is overtaken; returns when to call again (monotonic ms). Throws when a disk that
   * was read-only at the start is so no more: the successor of this process opens the database for writing.
   */
  tick(): number {
    const { state } = this;
    const nowMs = this.#deps.clock.monotonicMs();
    if (this.#openedReadOnly && !isReadOnly(state.database.name)) {
      throw new Error(`${state.database.name} can be written again: it has to be opened anew`);
    }
    if (this.#retries.length > 0) this.apply([]);
    let nextDueMs = this.#retries.length > 0 ? nowMs + busyRetryMs : Number.POSITIVE_INFINITY;
    if (this.#openedReadOnly) nextDueMs = Math.min(nextDueMs, nowMs + readOnlyLookMs);
    if (state.held.size === 0) return nextDueMs;
    const due = [...state.held.values()].filter(({ dueMs }) => dueMs <= nowMs);
    const isPublished = this.#inTransaction(() => {
      for (const save of due) state.publishEnded(save);
    });
    const { overdue, nextDueMs: overtakeDueMs } = this.#overtakes.overdue(
      state.held.values(),
      state.newestPublishedRowId,
      nowMs,
      this.#options.overtakeGraceMs,
    );
    const isMoved = this.#moveAside(overdue);
    if (!isPublished || !isMoved) nextDueMs = Math.min(nextDueMs, nowMs + busyRetryMs);
    nextDueMs = Math.min(nextDueMs, overtakeDueMs);
    for (const { dueMs } of state.held.values()) {
      if (dueMs > nowMs) nextDueMs = Math.min(nextDueMs, dueMs);
    }
    return nextDueMs;
  }

  /** Call after the replies of a batch: WAL and size, between two batches. */
  afterReplies(): void {
    if (!this.#hasCommitted) return;
    this.#hasCommitted = false;
    this.state.files.trimTexts();
    this.#size.afterReplies();
  }

  /** Call when nothing has come for a while. */
  idle(): void {
    if (this.#size.isNearlyFull()) this.#makeRoom();
    this.#inTransaction(() => {
      this.state.storeProgress(false);
    });
    this.#size.checkpointIdle();
  }

  /**
   * The host has all rows through `rowId`: they may go when room is needed. A row_id that was never given means that
   * the database was rolled back unnoticed: false, and the caller restarts with a new generation.
   */
  acknowledge(generation: string, rowId: number): boolean {
    if (generation !== this.#identity.generation) return true;
    if (rowId > this.state.lastRowId) return false;
    this.state.acknowledgedRowId = Math.max(this.state.acknowledgedRowId, rowId);
    return true;
  }

  /** Begins a new generation: the host knows of rows that are not here. */
  declareRolledBack(hostRowId: number): void {
    const generation = Buffer.from(this.#deps.random.bytes(16)).toString('hex');
    const afterRowId = Math.max(this.state.lastRowId, hostRowId);
    this.#inTransaction(() => {
      this.state.begin();
      this.state.skipRowIds(afterRowId);
      this.state.database
        .prepare(
          `UPDATE "/state" SET generation = ?, generation_reason = 'rolled-back',
           generation_after_row_id = ?, acknowledged_row_id = 0 WHERE id = 1`,
        )
        .run(generation, afterRowId);
    });
    this.state.acknowledgedRowId = 0;
    this.#identity = { ...this.#identity, generation, reason: 'rolled-back', afterRowId };
  }

  close(): void {
    this.#inTransaction(() => {
      this.state.storeProgress(true);
    });
    this.#size.checkpointIdle();
    this.state.database.close();
  }

  #recover(): void {
    const { state } = this;
    state.begin();
    const rows = state.database
      .prepare<
        [],
        {
          held_id: number;
          table_name: string;
          saved_at_us: number;
          rows: string | null;
          content: Buffer | null;
        }
      >('SELECT * FROM "/held" ORDER BY held_id')
      .all();
    for (const held of rows) {
      const saved =
        held.rows === null ? [opaqueRow(held.content ?? new Uint8Array())] : decodeRows(held.rows);
      state.insertRows(held.table_name, held.saved_at_us, saved);
    }
    // Even of nothing it would write a page, for which a full disk has no room.
    if (rows.length > 0) state.database.exec('DELETE FROM "/held"');
    state.markPublished(state.lastRowId);
    this.#deps.reachCrashPoint('before-held-commit');
    state.commit();
    this.#deps.reachCrashPoint('after-held-commit');
    // Tidying up: a full disk must not keep the agent from starting.
    this.#inTransaction(() => {
      state.begin();
      this.#applier.compactLoggers();
      state.quarantine.trim(this.#deps.clock.wallUs());
    });
  }

  #tryApply(requests: readonly StoreRequest[]): StoreOutcome[] | { readonly error: unknown } {
    const { state } = this;
    try {
      const results = requests.map((request) => this.#applier.apply(request));
      this.#noteWritten(requests);
      state.commit();
      return requests.map((request, index) => this.#outcome(request, results[index] ?? 0));
    } catch (error) {
      state.rollBack();
      return { error };
    }
  }

  #noteWritten(requests: readonly StoreRequest[]): void {
    if (!this.state.database.inTransaction) return;
    this.#hasCommitted = true;
    for (const request of requests) {
      if (request.kind === 'save') this.#size.noteWritten(request.content.byteLength);
      else if (request.kind === 'append') this.#size.noteWritten(request.lines.byteLength);
    }
  }

  #applyAlone(request: StoreRequest): StoreOutcome {
    const first = this.#tryApply([request]);
    if (Array.isArray(first)) return first[0] ?? this.#outcome(request, 0);
    return this.#outcome(request, this.#errnoOf(first.error, request));
  }

  #errnoOf(error: unknown, request: StoreRequest): number {
    if (isBusy(error)) {
      this.#retryLater(request);
      return -EAGAIN;
    }
    if (isDatabaseFull(error)) return -ENOSPC;
    this.#deps.log.error('store-request-failed', {
      area: this.state.area,
      request: request.kind,
      code: systemErrorCode(error) ?? null,
      error: String(error),
    });
    return isReadOnlyError(error, this.state.database.name) ? -EROFS : -EIO;
  }

  #fail(requests: readonly StoreRequest[], result: number): readonly StoreOutcome[] {
    for (const request of requests) this.#retryLater(request);
    return requests.map((request) => this.#outcome(request, result));
  }

  /** Whoever waits gets the error; what nobody waits for must happen all the same. */
  #retryLater(request: StoreRequest): void {
    if ('token' in request && request.token !== null) return;
    if (this.#retries.length < this.#options.retriesMax) {
      this.#retries.push(request);
      return;
    }
    this.counters.droppedRetries += 1;
    this.#deps.log.error('store-request-dropped', {
      area: this.state.area,
      request: request.kind,
      reason: 'another program has kept the database locked',
    });
  }

  #outcome(request: StoreRequest, result: number): StoreOutcome {
    const { counters } = this;
    const isSave = request.kind === 'save' || request.kind === 'append';
    if (isSave && result >= 0) counters.saves += 1;
    else if (result === -EAGAIN) counters.busy += 1;
    else if (result === -ENOSPC) counters.full += 1;
    else if (result === -EIO || result === -EROFS) counters.failed += 1;
    else if (result < 0) counters.refused += 1;
    const file = 'file' in request ? request.file : 0;
    return {
      kind: request.kind,
      file,
      handle: 'handle' in request ? request.handle : 0,
      result,
      sizeBytes: this.state.files.sizeBytes(file),
    };
  }

  #moveAside(overdue: ReturnType<OvertakeWatch['overdue']>['overdue']): boolean {
    if (overdue.length === 0) return true;
    const isMoved = this.#inTransaction(() => {
      for (const save of overdue) this.state.moveAside(save);
      this.#deps.reachCrashPoint('before-overtake-commit');
    });
    this.#deps.reachCrashPoint('after-overtake-commit');
    if (isMoved) this.counters.overtaken += overdue.length;
    return isMoved;
  }

  /** Runs `work` as a transaction; false when it was rolled back, which is logged unless it was a lock. */
  #inTransaction(work: () => void): boolean {
    try {
      work();
      this.#hasCommitted ||= this.state.database.inTransaction;
      this.state.commit();
      return true;
    } catch (error) {
      this.state.rollBack();
      if (!isBusy(error)) {
        this.#deps.log.warn('store-transaction-failed', {
          area: this.state.area,
          code: systemErrorCode(error) ?? null,
          error: String(error),
        });
      }
      return false;
    }
  }

  #makeRoom(): void {
    try {
      const pruned = this.#size.prune(this.state.acknowledgedRowId);
      if (pruned === undefined || pruned.lost === null) return;
      this.#lost.push(pruned.lost);
      this.counters.lostRows += pruned.lost.count;
      this.#deps.log.error('rows-lost', {
        area: this.state.area,
        rowCount: pruned.lost.count,
        reason: 'the database is full and the host has not fetched them',
      });
    } catch (error) {
      this.#deps.log.error('prune-failed', { area: this.state.area, error: String(error) });
    }
  }
}
