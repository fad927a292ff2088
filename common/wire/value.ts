/**
 * One measured value. Integers outside the safe range of a JavaScript number are `bigint`; both fit 64 bits.
 * Bytes appear only under `encrypted/`. `null` is an empty CSV field: a known absence, not a missing value.
 */
export type Value = number | bigint | string | Uint8Array | null;
