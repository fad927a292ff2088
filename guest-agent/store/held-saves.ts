import type { TableRow } from './kpi-tables.ts';
import type { FileId } from './store-request.ts';

/** A save that is committed but not yet published. */
export interface HeldSave {
  /** Negative for a first line that may be labels: its handle may hold an unfinished line besides. */
  readonly handle: number;
  readonly file: FileId;
  readonly table: string;
  readonly savedAtUs: number;
  readonly rows: readonly TableRow[];
  /** Where its rows are: in its table, or in `/held` when it was overtaken. */
  readonly place:
    | { readonly kind: 'table'; readonly fromRowId: number; readonly throughRowId: number }
    | { readonly kind: 'aside'; readonly heldId: number };
  /** What the file held before the handle's first held save: what a later one is compared with. */
  readonly textBefore: string;
  readonly isAppend: boolean;
  /** Set while the only row may yet turn out to be a logger's labels. */
  readonly mayBeLabels: boolean;
  /** Set while the row is an unfinished line that, ended here, makes the file's first line labels. */
  readonly settlesLabels: boolean;
  /** Publish no sooner than this, as a rename may follow; 0 otherwise. Monotonic ms. */
  readonly newNameUntilMs: number;
  /** Publish at this time even if nothing more is heard. Monotonic ms. */
  readonly dueMs: number;
}

/**
 * The row_id through which everything is published: just below the lowest held row that is still in its table,
 * else the last row of all.
 */
export function frontierOf(held: Iterable<HeldSave>, lastRowId: number): number {
  let frontier = lastRowId;
  for (const { place } of held) {
    if (place.kind === 'table' && place.fromRowId <= frontier) frontier = place.fromRowId - 1;
  }
  return frontier;
}

/** When each held save was first seen in the way of a published row. Monotonic ms. */
export class OvertakeWatch {
  readonly #sinceMs = new WeakMap<HeldSave, number>();

  /** The held saves that have kept `newestPublishedRowId` from the host for `graceMs`; notes the others. */
  overdue(
    held: Iterable<HeldSave>,
    newestPublishedRowId: number,
    nowMs: number,
    graceMs: number,
  ): { readonly overdue: readonly HeldSave[]; readonly nextDueMs: number } {
    const overdue: HeldSave[] = [];
    let nextDueMs = Number.POSITIVE_INFINITY;
    for (const save of held) {
      if (save.place.kind !== 'table' || save.place.fromRowId > newestPublishedRowId) continue;
      const sinceMs = this.#sinceMs.get(save) ?? nowMs;
      this.#sinceMs.set(save, sinceMs);
      if (nowMs - sinceMs >= graceMs) overdue.push(save);
      else nextDueMs = Math.min(nextDueMs, sinceMs + graceMs);
    }
    return { overdue, nextDueMs };
  }
}

/** Rows as JSON that keeps INTEGER, REAL and TEXT apart, for `/held`. */
export function encodeRows(rows: readonly TableRow[]): string {
  return JSON.stringify(
    rows.map(({ columns, values }) => [
      columns,
      values.map((value) => {
        if (value === null || value instanceof Uint8Array) return null;
        if (typeof value === 'string') return `t${value}`;
        return typeof value === 'bigint' ? `i${value}` : `r${value}`;
      }),
    ]),
  );
}

/** The inverse of {@link encodeRows}. */
export function decodeRows(encoded: string): readonly TableRow[] {
  const rows = JSON.parse(encoded) as [readonly string[], readonly (string | null)[]][];
  return rows.map(([columns, values]) => ({
    columns,
    values: values.map((value) => {
      if (value === null) return null;
      const text = value.slice(1);
      if (value.startsWith('t')) return text;
      return value.startsWith('i') ? BigInt(text) : Number(text);
    }),
  }));
}
