import type { Area } from '../../common/channel/area.ts';
import type { LoggerState } from '../../common/csv/csv-rows.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { ReachCrashPoint } from './crash-point.ts';
import type { DatabaseIdentity } from './database-identity.ts';
import { FileTable } from './file-table.ts';
import { encodeRows, frontierOf, type HeldSave } from './held-saves.ts';
import { KpiTables, type TableRow } from './kpi-tables.ts';
import { Quarantine } from './quarantine.ts';
import type { StoreOptions } from './store-options.ts';
import type { FileId } from './store-request.ts';
import { UndoLog } from './undo-log.ts';

/** An unfinished line at the end of a logger's file, which the handle's next append writes again. */
export interface UnfinishedLine {
  readonly file: FileId;
  readonly loggerBefore: LoggerState;
}

/**
 * Row_ids are reserved in `/state` this many at a time: otherwise each commit would write one more page. A killed agent
 * leaves a gap of at most this.
 */
const reservedRowIds = 256;

/**
 * One area's database and what is kept in memory of it, changed together: a transaction begins with the first write and
 * ends with {@link commit} or {@link rollBack}, which take memory along.
 */
export class AreaState {
  readonly area: Area;
  readonly database: Database;
  readonly undo = new UndoLog();
  readonly tables: KpiTables;
  readonly files: FileTable;
  readonly quarantine: Quarantine;
  readonly held = new Map<number, HeldSave>();
  readonly loggers = new Map<FileId, LoggerState>();
  readonly unfinished = new Map<number, UnfinishedLine>();
  #lastRowId: number;
  /** `/state` says that row_ids through this one may have been used. */
  #reservedRowId: number;
  #commitCount: number;
  #storedCommitCount: number;
  /** The host has every row through this one. Durable with the next write of `/state`: only pruning needs it. */
  acknowledgedRowId: number;
  #newestPublishedRowId: number;
  /** Lowest frontier promised: it never falls. */
  #frontier: number;
  readonly #reachCrashPoint: ReachCrashPoint;
  readonly #beginStatement: Statement;
  readonly #commitStatement: Statement;
  readonly #updateState: Statement;
  readonly #addHeld: Statement;
  readonly #deleteHeld: Statement;

  constructor(
    area: Area,
    database: Database,
    identity: DatabaseIdentity,
    options: StoreOptions,
    reachCrashPoint: ReachCrashPoint,
  ) {
    this.area = area;
    this.database = database;
    this.#reachCrashPoint = reachCrashPoint;
    this.tables = new KpiTables(database, this.undo, options);
    this.files = new FileTable(database, this.undo, options.textCacheCharactersMax);
    this.quarantine = new Quarantine(database, {
      bytesMax: options.quarantineBytesMax,
      ageMaxMs: options.quarantineAgeMaxMs,
    });
    this.#lastRowId = identity.lastRowId;
    this.#newestPublishedRowId = identity.lastRowId;
    this.#frontier = identity.lastRowId;
    this.#reservedRowId = identity.lastRowId;
    this.#commitCount = identity.commitCount;
    this.#storedCommitCount = identity.commitCount;
    this.acknowledgedRowId = identity.acknowledgedRowId;
    this.#beginStatement = database.prepare('BEGIN IMMEDIATE');
    this.#commitStatement = database.prepare('COMMIT');
    this.#updateState = database.prepare(
      `UPDATE "/state" SET last_row_id = ?, commit_count = ?, acknowledged_row_id = ?
       WHERE id = 1`,
    );
    this.#addHeld = database.prepare(
      'INSERT INTO "/held" (handle, table_name, saved_at_us, rows, content) VALUES (?, ?, ?, ?, ?)',
    );
    this.#deleteHeld = database.prepare('DELETE FROM "/held" WHERE held_id = ?');
  }

  get lastRowId(): number {
    return this.#lastRowId;
  }

  get commitCount(): number {
    return this.#commitCount;
  }

  /** The commit count and row_id that `/state` has: what a side file may claim. */
  get storedProgress(): { readonly commitCount: number; readonly lastRowId: number } {
    return { commitCount: this.#storedCommitCount, lastRowId: this.#reservedRowId };
  }

  get newestPublishedRowId(): number {
    return this.#newestPublishedRowId;
  }

  /** Every row through this row_id is published, and none will ever appear at or below it. */
  frontier(): number {
    this.#frontier = Math.max(this.#frontier, frontierOf(this.held.values(), this.#lastRowId));
    return this.#frontier;
  }

  /** Begins the transaction unless one is open. Throws SQLITE_BUSY when another program holds the lock too long. */
  begin(): void {
    if (this.database.inTransaction) return;
    this.#beginStatement.run();
    const lastRowId = this.#lastRowId;
    const commitCount = this.#commitCount;
    this.undo.record(() => {
      this.#lastRowId = lastRowId;
      this.#commitCount = commitCount;
    });
    this.tables.markInserted();
  }

  /** Makes all since {@link begin} durable. When it throws, the caller rolls back. */
  commit(): void {
    if (this.database.inTransaction) {
      this.#commitCount += 1;
      if (this.#lastRowId > this.#reservedRowId) this.#writeState(this.#lastRowId + reservedRowIds);
      this.#reachCrashPoint('before-commit');
      this.#commitStatement.run();
      this.#reachCrashPoint('after-commit');
    }
    this.undo.forget();
  }

  /** Commits how far the database has come, which most commits leave out. At the end, row_ids are not left reserved. */
  storeProgress(isEnd: boolean): void {
    const isStored =
      this.#storedCommitCount === this.#commitCount &&
      (!isEnd || this.#reservedRowId === this.#lastRowId);
    if (isStored) return;
    this.begin();
    this.#commitCount += 1;
    this.#writeState(isEnd ? this.#lastRowId : this.#reservedRowId);
    this.#commitStatement.run();
    this.undo.forget();
  }

  #writeState(reservedRowId: number): void {
    const { reserved, stored } = { reserved: this.#reservedRowId, stored: this.#storedCommitCount };
    this.undo.record(() => {
      this.#reservedRowId = reserved;
      this.#storedCommitCount = stored;
    });
    this.#updateState.run(reservedRowId, this.#commitCount, this.acknowledgedRowId);
    this.#reservedRowId = reservedRowId;
    this.#storedCommitCount = this.#commitCount;
  }

  rollBack(): void {
    if (this.database.inTransaction) this.database.exec('ROLLBACK');
    this.undo.rollBack();
  }

  /** Inserts the rows of one save under fresh row_ids. */
  insertRows(
    table: string,
    savedAtUs: number,
    rows: readonly TableRow[],
  ): { readonly kind: 'table'; readonly fromRowId: number; readonly throughRowId: number } {
    const fromRowId = this.#lastRowId + 1;
    for (const row of rows) {
      this.tables.insert(table, this.#lastRowId + 1, savedAtUs, row);
      this.#lastRowId += 1;
    }
    return { kind: 'table', fromRowId, throughRowId: this.#lastRowId };
  }

  /** Row_ids up to `rowId` are known elsewhere and are not given again. */
  skipRowIds(rowId: number): void {
    this.#lastRowId = Math.max(this.#lastRowId, rowId);
  }

  hold(save: HeldSave): void {
    this.undo.set(this.held, save.handle, save);
  }

  /** Takes the rows of a held save away, as others come in their place. */
  withdraw(save: HeldSave): void {
    this.begin();
    if (save.place.kind === 'aside') this.#deleteHeld.run(save.place.heldId);
    else this.#deleteRows(save.table, save.place);
    this.undo.delete(this.held, save.handle);
  }

  /** Lets the host have a held save. One that waits in its table needs no write for it. */
  publish(save: HeldSave): void {
    if (save.place.kind === 'aside') {
      this.begin();
      this.#deleteHeld.run(save.place.heldId);
      this.insertRows(save.table, save.savedAtUs, save.rows);
      this.markPublished(this.#lastRowId);
    } else {
      this.markPublished(save.place.throughRowId);
    }
    this.undo.delete(this.held, save.handle);
  }

  /**
   * Publishes a held save whose end has come, unless it went meanwhile. An unfinished line ends here, so a first line
   * that it shows to be labels is withdrawn.
   */
  publishEnded(save: HeldSave): void {
    if (this.held.get(save.handle) !== save) return;
    if (save.mayBeLabels || save.settlesLabels) {
      const sameFile = [...this.held.values()].filter(({ file }) => file === save.file);
      if (sameFile.some(({ settlesLabels }) => settlesLabels)) {
        for (const other of sameFile) if (other.mayBeLabels) this.withdraw(other);
        if (save.mayBeLabels) return;
      }
    }
    this.publish(save);
  }

  markPublished(throughRowId: number): void {
    const before = this.#newestPublishedRowId;
    if (throughRowId <= before) return;
    this.#newestPublishedRowId = throughRowId;
    this.undo.record(() => {
      this.#newestPublishedRowId = before;
    });
  }

  /** Moves an overtaken save to `/held`, out of the way of later rows. */
  moveAside(save: HeldSave): void {
    if (save.place.kind === 'aside') return;
    this.begin();
    const content = save.rows[0]?.values[0];
    const isOpaque = content instanceof Uint8Array;
    const { lastInsertRowid } = this.#addHeld.run(
      save.handle,
      save.table,
      save.savedAtUs,
      isOpaque ? null : encodeRows(save.rows),
      isOpaque ? content : null,
    );
    this.#deleteRows(save.table, save.place);
    this.hold({ ...save, place: { kind: 'aside', heldId: Number(lastInsertRowid) } });
  }

  /** savedAtUs of the oldest held save; undefined when none is held. */
  oldestHeldUs(): number | undefined {
    let oldest: number | undefined;
    for (const { savedAtUs } of this.held.values()) {
      if (oldest === undefined || savedAtUs < oldest) oldest = savedAtUs;
    }
    return oldest;
  }

  #deleteRows(
    table: string,
    { fromRowId, throughRowId }: { readonly fromRowId: number; readonly throughRowId: number },
  ): void {
    this.tables.deleteRows(table, fromRowId, throughRowId);
    this.tables.takeBack(table, fromRowId, throughRowId);
  }
}
