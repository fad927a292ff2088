import type { Value } from '../wire/value.ts';
import type { Area } from './area.ts';
import type { GuestRow } from './guest-row.ts';

/**
 * Rows as a fetch's answer carries them: each distinct pair of table and columns once, each row as
 * `[shape index, row id, saved at, ...values]`.
 */
export interface RowBlock {
  readonly shapes: readonly (readonly [table: string, columns: readonly string[]])[];
  readonly rows: readonly (readonly Value[])[];
}

const fieldsBeforeValues = 3;
const int64Min = -(2n ** 63n);
const int64Max = 2n ** 63n - 1n;

/** The rows of one area, packed. Equal columns are recognised by content, at once when it is the same array. */
export function packRows(rows: readonly GuestRow[]): RowBlock {
  const shapes: [string, readonly string[]][] = [];
  const indexByKey = new Map<string, number>();
  const latestByTable = new Map<string, { columns: readonly string[]; index: number }>();
  const packed = rows.map((row): Value[] => {
    let latest = latestByTable.get(row.table);
    if (latest?.columns !== row.columns) {
      const key = JSON.stringify([row.table, row.columns]);
      let index = indexByKey.get(key);
      if (index === undefined) {
        index = shapes.push([row.table, row.columns]) - 1;
        indexByKey.set(key, index);
      }
      latest = { columns: row.columns, index };
      latestByTable.set(row.table, latest);
    }
    return [latest.index, row.rowId, row.savedAtUs, ...row.values];
  });
  return { shapes, rows: packed };
}

/**
 * The rows that `block` holds, checked: shapes that exist, as many values as columns, row ids that rise, values
 * that are ones. Returns a sentence on what is wrong otherwise.
 */
export function unpackRows(block: unknown, area: Area): readonly GuestRow[] | string {
  if (typeof block !== 'object' || block === null) return 'no row block';
  if (!('shapes' in block && Array.isArray(block.shapes))) return 'no shapes';
  if (!('rows' in block && Array.isArray(block.rows))) return 'no rows';
  const shapes: [string, readonly string[]][] = [];
  for (const shape of block.shapes as readonly unknown[]) {
    if (!isShape(shape)) return 'a shape is not a table and its columns';
    shapes.push(shape);
  }
  const rows: GuestRow[] = [];
  let lastRowId = 0;
  for (const packed of block.rows as readonly unknown[]) {
    const row = unpackRow(packed, shapes, area);
    if (typeof row === 'string') return row;
    if (row.rowId <= lastRowId) return 'row ids do not rise';
    lastRowId = row.rowId;
    rows.push(row);
  }
  return rows;
}

function unpackRow(
  packed: unknown,
  shapes: readonly [string, readonly string[]][],
  area: Area,
): GuestRow | string {
  if (!Array.isArray(packed)) return 'a row is not an array';
  const [shapeIndex, rowId, savedAtUs] = packed as readonly unknown[];
  const shape = typeof shapeIndex === 'number' ? shapes[shapeIndex] : undefined;
  if (shape === undefined) return 'a row has no shape';
  const [table, columns] = shape;
  if (packed.length !== columns.length + fieldsBeforeValues) return 'values do not fit columns';
  if (!isSafeInteger(rowId) || !isSafeInteger(savedAtUs)) return 'row id or time is no integer';
  const values: Value[] = [];
  for (let index = fieldsBeforeValues; index < packed.length; index += 1) {
    const value = toValue(packed[index]);
    if (value === undefined) return 'a value is none of number, text, bytes, null';
    values.push(value);
  }
  return { area, table, rowId, savedAtUs, columns, values };
}

function toValue(item: unknown): Value | undefined {
  if (typeof item === 'number' || typeof item === 'string' || item === null) return item;
  if (typeof item === 'bigint') return item >= int64Min && item <= int64Max ? item : undefined;
  // The decoder's own class of bytes is narrowed to what Value says.
  if (item instanceof Uint8Array) {
    return new Uint8Array(item.buffer, item.byteOffset, item.byteLength);
  }
  return undefined;
}

function isShape(shape: unknown): shape is [string, readonly string[]] {
  if (!Array.isArray(shape) || shape.length !== 2) return false;
  const [table, columns] = shape as readonly unknown[];
  return (
    typeof table === 'string' &&
    Array.isArray(columns) &&
    columns.every((column) => typeof column === 'string')
  );
}

function isSafeInteger(item: unknown): item is number {
  return Number.isSafeInteger(item);
}
