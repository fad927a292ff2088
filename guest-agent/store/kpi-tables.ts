import { foldCase } from '../../common/csv/csv-labels.ts';
import type { CsvValue } from '../../common/csv/csv-value.ts';
import { type Database, quoteIdentifier, type Statement } from '../../common/sqlite/database.ts';
import { compileDataPointPattern } from '../../common/wire/data-point.ts';
import { isOwnTable } from './schema.ts';
import type { UndoLog } from './undo-log.ts';

/** One row for a KPI table; `columns` and `values` have the same length. */
export interface TableRow {
  readonly columns: readonly string[];
  readonly values: readonly (CsvValue | Uint8Array)[];
}

/** Why a table can't take rows: decided before anything is written. */
export type TableRefusal = 'too-many-tables' | 'too-many-columns';

interface KpiTable {
  /** As it was first created; SQLite compares names without regard to the case of A-Z, and so do we. */
  readonly name: string;
  /** Folded names of its columns. */
  columns: ReadonlySet<string>;
  readonly inserts: Map<string, Statement>;
  /** The columns that the newest layout lists. */
  layout: string | undefined;
}

interface InsertedRow {
  readonly rowId: number;
  readonly table: string;
}

/** Dropping a column rewrites its table: a larger one keeps the column. */
const rewrittenRowsMax = 1_000;

const collectFunction = 'isobar_collect_row';

/**
 * The tables that hold saves: creation, new columns, inserts through cached statements, and the temporary triggers that
 * the host registers. All calls but the constructor run inside the caller's transaction and undo themselves with it.
 */
export class KpiTables {
  readonly #database: Database;
  readonly #undo: UndoLog;
  readonly #limits: {
    readonly tablesMax: number;
    readonly columnsMax: number;
    readonly statementsMax: number;
  };
  readonly #tables = new Map<string, KpiTable>();
  readonly #addLayout: Statement;
  #statementCount = 0;
  #isWatched: (table: string) => boolean = () => false;
  readonly #watched: string[] = [];
  #inserted: InsertedRow[] = [];

  constructor(
    database: Database,
    undo: UndoLog,
    limits: {
      readonly tablesMax: number;
      readonly columnsMax: number;
      readonly statementsMax: number;
    },
  ) {
    this.#database = database;
    this.#undo = undo;
    this.#limits = limits;
    this.#addLayout = database.prepare('INSERT OR REPLACE INTO "/layouts" VALUES (?, ?, ?)');
    database.function(collectFunction, (watchedIndex: unknown, rowId: unknown) => {
      const table = this.#watched[Number(watchedIndex)];
      if (table !== undefined) this.#inserted.push({ rowId: Number(rowId), table });
      return null;
    });
    for (const name of tableNames(database)) this.#tables.set(foldCase(name), this.#load(name));
  }

  /** Names of all KPI tables. */
  names(): readonly string[] {
    return [...this.#tables.values()].map(({ name }) => name);
  }

  /** Whether `table` could not take rows with `columns`; undefined when it can. */
  refusal(table: string, columns: readonly string[]): TableRefusal | undefined {
    const known = this.#tables.get(foldCase(table));
    if (known === undefined) {
      return this.#tables.size >= this.#limits.tablesMax ? 'too-many-tables' : undefined;
    }
    let count = known.columns.size;
    for (const column of columns) if (!known.columns.has(foldCase(column))) count += 1;
    return count > this.#limits.columnsMax ? 'too-many-columns' : undefined;
  }

  /** Inserts one row; makes the table and the columns that are missing. */
  insert(tableName: string, rowId: number, savedAtUs: number, row: TableRow): void {
    const table = this.#tables.get(foldCase(tableName)) ?? this.#create(tableName, row.columns);
    const signature = row.columns.length === 1 ? (row.columns[0] ?? '') : row.columns.join('\n');
    if (table.layout !== signature) this.#changeLayout(table, rowId, row.columns, signature);
    let insert = table.inserts.get(signature);
    if (insert === undefined) {
      insert = this.#prepareInsert(table, row.columns);
      table.inserts.set(signature, insert);
    }
    insert.run(rowId, savedAtUs, ...row.values);
  }

  /** Deletes the rows of a save that is replaced or moved. */
  deleteRows(table: string, fromRowId: number, throughRowId: number): void {
    this.#database
      .prepare(`DELETE FROM ${quoteIdentifier(table)} WHERE row_id BETWEEN ? AND ?`)
      .run(fromRowId, throughRowId);
  }

  /**
   * After {@link deleteRows}: takes back the table, or the columns, that only those rows needed. A program that saves the
   * labels first and the values later would otherwise leave `column1` beside its labels for ever.
   */
  takeBack(tableName: string, fromRowId: number, throughRowId: number): void {
    const table = this.#tables.get(foldCase(tableName));
    if (table === undefined) return;
    const layouts = this.#layouts(table.name);
    const newest = layouts.at(-1);
    // Only the newest layout can be taken back: rows of later ones may be there.
    if (newest === undefined || newest.firstRowId < fromRowId || newest.firstRowId > throughRowId) {
      return;
    }
    const before = layouts.filter(({ firstRowId }) => firstRowId < fromRowId);
    if (before.length === 0) this.#dropIfEmpty(table);
    else this.#dropColumns(table, fromRowId, layouts, before);
  }

  /** Whether {@link watch} was last called with any pattern. */
  hasWatch = false;

  /**
   * Replaces the registered patterns (globs over table names) by `patterns`: matching tables, and those that come later,
   * get a temporary AFTER INSERT trigger on this connection which collects what {@link takeInserted} returns. Rows above
   * `reportedRowId` were committed before and are announced later: they are collected here.
   */
  watch(patterns: readonly string[], reportedRowId: number): void {
    const matchers = patterns.map(compileDataPointPattern);
    for (const [index] of this.#watched.entries()) {
      this.#database.exec(`DROP TRIGGER IF EXISTS temp.${triggerName(index)}`);
    }
    this.#watched.length = 0;
    this.#inserted = [];
    this.hasWatch = matchers.length > 0;
    this.#isWatched = (table) => matchers.some((matches) => matches(table));
    for (const name of this.names()) {
      this.#watchTable(name);
      if (this.#isWatched(name)) this.#collectAbove(name, reportedRowId);
    }
  }

  /** The collected tables with rows up to `throughRowId`; what lies above stays collected. */
  takeInserted(throughRowId: number): readonly string[] {
    if (this.#inserted.length === 0) return [];
    const tables = new Set<string>();
    const later: InsertedRow[] = [];
    for (const inserted of this.#inserted) {
      if (inserted.rowId <= throughRowId) tables.add(inserted.table);
      else later.push(inserted);
    }
    this.#inserted = later;
    return [...tables];
  }

  /** Call when a transaction begins: what its triggers collect is dropped if it is rolled back. */
  markInserted(): void {
    if (this.#watched.length === 0 && this.#inserted.length === 0) return;
    const count = this.#inserted.length;
    this.#undo.record(() => {
      this.#inserted.length = count;
    });
  }

  #layouts(table: string): readonly { readonly firstRowId: number; readonly columns: string }[] {
    return this.#database
      .prepare<[string], { firstRowId: number; columns: string }>(
        `SELECT first_row_id AS firstRowId, columns FROM "/layouts" WHERE table_name = ?
         ORDER BY first_row_id`,
      )
      .all(table);
  }

  #dropIfEmpty(table: KpiTable): void {
    const quoted = quoteIdentifier(table.name);
    if (this.#database.prepare(`SELECT 1 FROM ${quoted} LIMIT 1`).get() !== undefined) return;
    this.#database.exec(`DROP TABLE ${quoted}`);
    this.#database.prepare('DELETE FROM "/layouts" WHERE table_name = ?').run(table.name);
    this.#undo.delete(this.#tables, foldCase(table.name));
  }

  #dropColumns(
    table: KpiTable,
    fromRowId: number,
    layouts: readonly { readonly columns: string }[],
    before: readonly { readonly columns: string }[],
  ): void {
    this.#database
      .prepare('DELETE FROM "/layouts" WHERE table_name = ? AND first_row_id >= ?')
      .run(table.name, fromRowId);
    const quoted = quoteIdentifier(table.name);
    const isLarge =
      this.#database.prepare(`SELECT 1 FROM ${quoted} LIMIT 1 OFFSET ?`).get(rewrittenRowsMax) !==
      undefined;
    const kept = new Set(before.flatMap(({ columns }) => layoutColumns(columns)).map(foldCase));
    const dropped = layouts
      .flatMap(({ columns }) => layoutColumns(columns))
      .filter((column) => !kept.has(foldCase(column)));
    for (const column of isLarge ? [] : new Set(dropped)) {
      this.#database.exec(`ALTER TABLE ${quoted} DROP COLUMN ${quoteIdentifier(column)}`);
    }
    this.#undo.set(this.#tables, foldCase(table.name), this.#load(table.name));
  }

  #load(name: string): KpiTable {
    const columns = this.#database
      .prepare<[string], { name: string }>('SELECT name FROM pragma_table_info(?)')
      .all(name)
      .map((column) => foldCase(column.name))
      .filter((column) => column !== 'row_id' && column !== 'saved_at_us');
    const layout = this.#database
      .prepare<[string], { columns: string }>(
        'SELECT columns FROM "/layouts" WHERE table_name = ? ORDER BY first_row_id DESC LIMIT 1',
      )
      .get(name);
    return {
      name,
      columns: new Set(columns),
      inserts: new Map(),
      layout: layout === undefined ? undefined : layoutColumns(layout.columns).join('\n'),
    };
  }

  #create(name: string, columns: readonly string[]): KpiTable {
    const definitions = [
      'row_id INTEGER PRIMARY KEY',
      'saved_at_us INTEGER NOT NULL',
      ...columns.map(quoteIdentifier),
    ];
    this.#database.exec(`CREATE TABLE ${quoteIdentifier(name)} (${definitions.join(', ')})`);
    const table: KpiTable = {
      name,
      columns: new Set(columns.map(foldCase)),
      inserts: new Map(),
      layout: undefined,
    };
    this.#undo.set(this.#tables, foldCase(name), table);
    this.#watchTable(name);
    return table;
  }

  #changeLayout(
    table: KpiTable,
    rowId: number,
    columns: readonly string[],
    signature: string,
  ): void {
    const before = { columns: table.columns, layout: table.layout };
    this.#undo.record(() => {
      Object.assign(table, before);
      table.inserts.clear();
    });
    const missing = columns.filter((column) => !table.columns.has(foldCase(column)));
    for (const column of missing) {
      this.#database.exec(
        `ALTER TABLE ${quoteIdentifier(table.name)} ADD COLUMN ${quoteIdentifier(column)}`,
      );
    }
    if (missing.length > 0) {
      table.columns = new Set([...table.columns, ...missing.map(foldCase)]);
    }
    this.#addLayout.run(table.name, rowId, JSON.stringify(columns));
    table.layout = signature;
  }

  #prepareInsert(table: KpiTable, columns: readonly string[]): Statement {
    if (this.#statementCount >= this.#limits.statementsMax) {
      for (const other of this.#tables.values()) other.inserts.clear();
      this.#statementCount = 0;
    }
    this.#statementCount += 1;
    const names = ['row_id', 'saved_at_us', ...columns.map(quoteIdentifier)];
    return this.#database.prepare(
      `INSERT INTO ${quoteIdentifier(table.name)} (${names.join(', ')})
       VALUES (${names.map(() => '?').join(', ')})`,
    );
  }

  #collectAbove(table: string, reportedRowId: number): void {
    const rowIds = this.#database
      .prepare<[number], number>(`SELECT row_id FROM ${quoteIdentifier(table)} WHERE row_id > ?`)
      .pluck()
      .all(reportedRowId);
    this.#inserted.push(...rowIds.map((rowId) => ({ rowId, table })));
  }

  #watchTable(name: string): void {
    if (!this.#isWatched(name)) return;
    const index = this.#watched.push(name) - 1;
    // A rolled back creation leaves the entry without a trigger, which is harmless.
    this.#database.exec(
      `CREATE TEMP TRIGGER ${triggerName(index)} AFTER INSERT ON main.${quoteIdentifier(name)}
       BEGIN SELECT ${collectFunction}(${index}, NEW.row_id); END`,
    );
  }
}

/** Names of the KPI tables in `database`. */
export function tableNames(database: Database): readonly string[] {
  return database
    .prepare<[], { name: string }>(`SELECT name FROM main.sqlite_schema WHERE type = 'table'`)
    .all()
    .map(({ name }) => name)
    .filter((name) => !isOwnTable(name));
}

/** The columns that a `/layouts` entry lists. */
export function layoutColumns(columns: string): readonly string[] {
  return JSON.parse(columns) as readonly string[];
}

function triggerName(index: number): string {
  return quoteIdentifier(`isobar-collect-${index}`);
}
