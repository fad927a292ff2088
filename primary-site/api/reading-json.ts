import type { Value } from '../../common/wire/value.ts';
import type { Reading } from '../store/reading-reader.ts';

/**
 * A Value in JSON. Numbers, text and null stand for themselves; what JSON has no type for is an object that names it.
 */
export type JsonValue =
  | number
  | string
  | null
  | { readonly integer: string }
  | { readonly base64: string };

export interface ReadingJson extends Omit<Reading, 'value'> {
  readonly value: JsonValue;
}

export function readingJson(reading: Reading): ReadingJson {
  return { ...reading, value: jsonValue(reading.value) };
}

function jsonValue(value: Value): JsonValue {
  if (typeof value === 'bigint') return { integer: String(value) };
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString('base64') };
  return value;
}
