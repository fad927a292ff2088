import { formatDurationMs, parseDurationMs } from './duration.ts';

/**
 * A point in time as people type it: `10m` (that long ago), `now`, or ISO 8601 (`2026-01-01`, `2026-01-01T00:00Z`;
 * a time without a zone is UTC, as everything that Isobar prints). µs of the epoch, or undefined.
 */
export function parseTimeUs(text: string, nowUs: number): number | undefined {
  if (text === 'now') return nowUs;
  const agoMs = parseDurationMs(text);
  if (agoMs !== undefined) return nowUs - Math.round(agoMs * 1_000);
  const iso =
    /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?$/.exec(text);
  if (iso === null) return undefined;
  const isBareTime = text.includes('T') && iso[1] === undefined;
  const timeMs = Date.parse(isBareTime ? `${text}Z` : text);
  return Number.isNaN(timeMs) ? undefined : timeMs * 1_000;
}

/** `2026-11-21T04:03:12.345Z`: sorts as text and can be given back to --since. */
export function formatTimeUs(timeUs: number): string {
  return new Date(timeUs / 1_000).toISOString();
}

/** `4.2 s ago`, or `in 3 min` for a clock that is ahead by more than a second. */
export function formatAge(timeUs: number, nowUs: number): string {
  const ageMs = (nowUs - timeUs) / 1_000;
  return ageMs < -1_000 ? `in ${formatDurationMs(-ageMs)}` : `${formatDurationMs(ageMs)} ago`;
}
