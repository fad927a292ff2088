import assert from 'node:assert';

/*
 * Event time is µs of the epoch as a safe integer; grids are multiples of an interval counted from the epoch. `%` of
 * safe integers is exact where a division would round.
 */

/** The largest multiple of `intervalUs` at or before `timeUs`: the start of its window. */
export function floorToGrid(timeUs: number, intervalUs: number): number {
  assert(Number.isSafeInteger(timeUs) && intervalUs > 0);
  const rest = timeUs % intervalUs;
  return rest < 0 ? timeUs - rest - intervalUs : timeUs - rest;
}

/** The smallest multiple of `intervalUs` at or after `timeUs`: the tick that measures it. */
export function ceilToGrid(timeUs: number, intervalUs: number): number {
  const floorUs = floorToGrid(timeUs, intervalUs);
  return floorUs === timeUs ? timeUs : floorUs + intervalUs;
}

/** The smallest multiple of `intervalUs` after `timeUs`. */
export function nextOnGrid(timeUs: number, intervalUs: number): number {
  return floorToGrid(timeUs, intervalUs) + intervalUs;
}
