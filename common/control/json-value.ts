import { z } from 'zod';

import type { Value } from '../wire/value.ts';

/**
 * A Value in JSON. Numbers, text and null stand for themselves, so that `jq .value` works; what JSON has no type for
 * is an object that names it: integers beyond 2^53 and bytes.
 */
export const jsonValueSchema = z.union([
  z.number(),
  z.string(),
  z.null(),
  z.strictObject({ integer: z.string().regex(/^-?\d{1,19}$/) }),
  z.strictObject({ base64: z.base64() }),
]);
type JsonValue = z.output<typeof jsonValueSchema>;

/** The Value that `value` stands for. */
export function fromJsonValue(value: JsonValue): Value {
  if (typeof value !== 'object' || value === null) return value;
  if ('integer' in value) return BigInt(value.integer);
  return new Uint8Array(Buffer.from(value.base64, 'base64'));
}
