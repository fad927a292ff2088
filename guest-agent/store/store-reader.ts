import { join } from 'node:path';

import type { Area } from '../../common/channel/area.ts';
import type { GuestRow } from '../../common/channel/guest-row.ts';
import { foldCase } from '../../common/csv/csv-labels.ts';
import {
  type Database,
  openDatabase,
  quoteIdentifier,
  type Statement,
} from '../../common/sqlite/database.ts';
import type { Value } from '../../common/wire/value.ts';
import { layoutColumns, tableNames } from './kpi-tables.ts';
import { databaseFileName, readerCacheBytesMax } from './schema.ts';

export interface FetchRequest {
  readonly area: Area;
  /** The cursor: rows after this row_id. */
  readonly afterRowId: number;
  /** The frontier: rows behind it are not published. */
  readonly throughRowId: number;
  /** Where the caller knows that only these have rows in the range; else all tables are looked into. */
  readonly tables?: readonly string[];
  /** Which tables are wanted; all when absent. */
  readonly isWanted?: (table: string) => boolean;
  readonly rowsMax: number;
  /** Of the values, about; one row is given even when it is larger alone. */
  readonly bytesMax: number;
}

export interface FetchResult {
  /** Ascending by row_id, across tables. */
  readonly rows: readonly GuestRow[];
  /** Everything through here was looked at: the next cursor. */
  readonly throughRowId: number;
  /** A bound ended the reading before the frontier. */
  readonly hasMore: boolean;
}

export interface LostRange {
  readonly fromRowId: number;
  readonly throughRowId: number;
  readonly rowCount: number;
  readonly lostAtUs: number;
}

export interface QuarantinedSave {
  readonly path: string;
  readonly refusedAtUs: number;
  readonly reason: string;
  readonly message: string;
  readonly contentBytes: number;
}

type RawRow = (bigint | number | string | Buffer | null)[];

/** Rows read from one table at a time; the merge over all tables asks again for the one that runs out. */
const chunkRows = 64;
/** Row ids among which rows are counted one by one, a few milliseconds. */
const countedRowIdsMax = 100_000;
/** Statements kept for each database; all are dropped when there are more tables. */
const statementsMax = 1_000;

/** Reads what the store thread has committed, through a read-only connection of its own, which never blocks it. */
export class StoreReader {
  readonly #databases: Readonly<Record<Area, Database>>;
  readonly #statements = new Map<string, Statement<[number, number, number], RawRow>>();

  /** Opens the databases that the store thread has made. Throws DatabaseError. */
  constructor(directory: string) {
    const open = (area: Area): Database =>
      openDatabase(join(directory, databaseFileName(area)), {
        readonly: true,
        cacheBytesMax: readerCacheBytesMax,
      });
    this.#databases = { encrypted: open('encrypted'), unencrypted: open('unencrypted') };
  }

  close(): void {
    this.#databases.encrypted.close();
    this.#databases.unencrypted.close();
  }

  /** The generation of each database, why it began, and the last row_id before it. */
  generation(area: Area): {
    readonly generation: string;
    readonly reason: string;
    readonly afterRowId: number;
  } {
    const row = this.#databases[area]
      .prepare<[], { generation: string; reason: string; afterRowId: number }>(
        `SELECT generation, generation_reason AS reason, generation_after_row_id AS afterRowId
         FROM "/state"`,
      )
      .get();
    return row ?? { generation: '', reason: 'created', afterRowId: 0 };
  }

  /** The published rows after a cursor, from one snapshot: a table may go when the row that it was made for moves. */
  fetch(request: FetchRequest): FetchResult {
    return this.#inSnapshot(request.area, () => this.#fetch(request));
  }

  #inSnapshot<Result>(area: Area, read: () => Result): Result {
    const database = this.#databases[area];
    database.exec('BEGIN');
    try {
      return read();
    } finally {
      database.exec('COMMIT');
    }
  }

  #fetch(request: FetchRequest): FetchResult {
    const { area, isWanted = () => true } = request;
    const tables = request.tables ?? tableNames(this.#databases[area]);
    const names = tables.filter(isWanted);
    const sources = names.flatMap((name) => this.#source(area, name, request) ?? []);
    const rows: GuestRow[] = [];
    let byteCount = 0;
    for (;;) {
      let next: TableSource | undefined;
      for (const source of sources) {
        if (source.rowId < (next?.rowId ?? Number.POSITIVE_INFINITY)) next = source;
      }
      if (next === undefined) {
        const throughRowId = Math.max(request.afterRowId, request.throughRowId);
        return { rows, throughRowId, hasMore: false };
      }
      const row = next.row(area);
      byteCount += rowBytes(row);
      if (rows.length > 0 && (byteCount > request.bytesMax || rows.length >= request.rowsMax)) {
        return { rows, throughRowId: rows.at(-1)?.rowId ?? request.afterRowId, hasMore: true };
      }
      rows.push(row);
      next.advance();
    }
  }

  /**
   * How many rows are published after a cursor. Ids also go to rows that a later commit replaced and to those that a killed
   * agent had reserved. Over more than {@link countedRowIdsMax} ids, which would take long, it is the number of ids: never less.
   */
  rowCount(area: Area, afterRowId: number, throughRowId: number): number {
    const idCount = Math.max(0, throughRowId - afterRowId);
    if (idCount === 0 || idCount > countedRowIdsMax) return idCount;
    const database = this.#databases[area];
    const countOf = (table: string): number =>
      database
        .prepare<[number, number], number>(
          `SELECT count(*) FROM ${quoteIdentifier(table)} WHERE row_id > ? AND row_id <= ?`,
        )
        .pluck()
        .get(afterRowId, throughRowId) ?? 0;
    return this.#inSnapshot(area, () =>
      tableNames(database).reduce((sum, table) => sum + countOf(table), 0),
    );
  }

  /** What the size bound cost, of rows after `afterRowId`. */
  lost(area: Area, afterRowId: number): readonly LostRange[] {
    return this.#databases[area]
      .prepare<[number], LostRange>(
        `SELECT from_row_id AS fromRowId, through_row_id AS throughRowId, row_count AS rowCount,
         lost_at_us AS lostAtUs FROM "/lost" WHERE through_row_id > ? ORDER BY lost_id`,
      )
      .all(afterRowId);
  }

  /** What was refused, newest first. */
  quarantine(area: Area, countMax: number): readonly QuarantinedSave[] {
    return this.#databases[area]
      .prepare<[number], QuarantinedSave>(
        `SELECT path, refused_at_us AS refusedAtUs, reason, message, content_bytes AS contentBytes
         FROM "/quarantine" ORDER BY quarantine_id DESC LIMIT ?`,
      )
      .all(countMax);
  }

  /** Undefined for a table that is gone: its rows are elsewhere, under higher row_ids. */
  #source(area: Area, name: string, request: FetchRequest): TableSource | undefined {
    const database = this.#databases[area];
    try {
      return new TableSource(database, name, this.#statement(area, name), request);
    } catch (error) {
      this.#statements.delete(`${area}/${name}`);
      if (tableNames(database).includes(name)) throw error;
      return undefined;
    }
  }

  #statement(area: Area, name: string): Statement<[number, number, number], RawRow> {
    const key = `${area}/${name}`;
    let statement = this.#statements.get(key);
    if (statement === undefined) {
      if (this.#statements.size >= statementsMax) this.#statements.clear();
      statement = this.#databases[area]
        .prepare<[number, number, number], RawRow>(
          `SELECT * FROM ${quoteIdentifier(name)} WHERE row_id > ? AND row_id <= ?
           ORDER BY row_id LIMIT ?`,
        )
        .raw()
        .safeIntegers();
      this.#statements.set(key, statement);
    }
    return statement;
  }
}

/** One table's rows in a merge over all. */
class TableSource {
  readonly #database: Database;
  readonly #name: string;
  readonly #statement: Statement<[number, number, number], RawRow>;
  readonly #throughRowId: number;
  #rows: RawRow[];
  #index = 0;
  /** Where each column of the layout is in the rows of this chunk. */
  #positions: readonly number[] | undefined;
  #layout: { readonly columns: readonly string[]; readonly beforeRowId: number } | undefined;

  constructor(
    database: Database,
    name: string,
    statement: Statement<[number, number, number], RawRow>,
    request: FetchRequest,
  ) {
    this.#database = database;
    this.#name = name;
    this.#statement = statement;
    this.#throughRowId = request.throughRowId;
    this.#rows = statement.all(request.afterRowId, request.throughRowId, 1);
  }

  /** Of the current row; Infinity behind the last. */
  get rowId(): number {
    const id = this.#rows[this.#index]?.[0];
    return id === undefined ? Number.POSITIVE_INFINITY : Number(id);
  }

  advance(): void {
    const { rowId } = this;
    this.#index += 1;
    if (this.#index < this.#rows.length) return;
    this.#rows = this.#statement.all(rowId, this.#throughRowId, chunkRows);
    this.#index = 0;
    // The table may have got more columns since the last chunk.
    this.#positions = undefined;
  }

  row(area: Area): GuestRow {
    const raw = this.#rows[this.#index] ?? [];
    const { rowId } = this;
    const columns = this.#columnsAt(rowId);
    this.#positions ??= this.#positionsOf(columns);
    const values = this.#positions.map((position) => toValue(raw[position] ?? null));
    return { area, table: this.#name, rowId, savedAtUs: Number(raw[1]), columns, values };
  }

  #columnsAt(rowId: number): readonly string[] {
    if (this.#layout === undefined || rowId >= this.#layout.beforeRowId) {
      this.#positions = undefined;
      const layout = this.#database
        .prepare<[string, number], { columns: string }>(
          `SELECT columns FROM "/layouts" WHERE table_name = ? AND first_row_id <= ?
           ORDER BY first_row_id DESC LIMIT 1`,
        )
        .get(this.#name, rowId);
      const next = this.#database
        .prepare<[string, number], { next: number | null }>(
          'SELECT min(first_row_id) AS next FROM "/layouts" WHERE table_name = ? AND first_row_id > ?',
        )
        .get(this.#name, rowId);
      this.#layout = {
        columns: layout === undefined ? [] : layoutColumns(layout.columns),
        beforeRowId: next?.next ?? Number.POSITIVE_INFINITY,
      };
    }
    return this.#layout.columns;
  }

  /** -1 for a column that the table does not have. */
  #positionsOf(columns: readonly string[]): readonly number[] {
    const names = this.#statement.columns().map(({ name }) => name);
    return columns.map((column) => {
      const position = names.indexOf(column);
      if (position >= 0) return position;
      const folded = foldCase(column);
      return names.findIndex((name) => foldCase(name) === folded);
    });
  }
}

function toValue(value: RawRow[number]): Value {
  if (typeof value !== 'bigint') return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function rowBytes(row: GuestRow): number {
  let byteCount = 32;
  for (const value of row.values) {
    if (typeof value === 'string') byteCount += value.length;
    else if (value instanceof Uint8Array) byteCount += value.byteLength;
    else byteCount += 8;
  }
  return byteCount;
}
