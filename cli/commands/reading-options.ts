import { parseTimeUs } from '../text/time.ts';
import { UsageError } from '../usage-error.ts';

const firstSegments = ['kpi', 'encrypted', 'infra'];

/**
 * A data point pattern, checked for what can't match anything: the commonest mistakes are a file's name alone and a
 * path below the mount.
 * @throws UsageError with the pattern that was probably meant
 */
export function parsePattern(text: string): string {
  const pattern = text.replace(/^\/+/, '');
  const [first = ''] = pattern.split('/');
  if (first.includes('*')) return pattern;
  if (firstSegments.includes(first)) return pattern.includes('/') ? pattern : `${first}/**`;
  const file = pattern.replace(/^.*unencrypted\//, '');
  throw new UsageError(
    `no data point can match '${text}': names begin with kpi/, encrypted/ or infra/. ` +
      `For the file unencrypted/${file} it is: kpi/${encodeURIComponent(file)}/*`,
  );
}

/** @throws UsageError */
export function parseSince(text: string | undefined, nowUs: number): number | undefined {
  if (text === undefined) return undefined;
  const timeUs = parseTimeUs(text, nowUs);
  if (timeUs !== undefined) return timeUs;
  throw new UsageError(
    `'${text}' is no time: give how long ago (90s, 10m, 2h, 1d) or a date (2026-01-01, 2026-01-01T00:00Z)`,
  );
}

/** @throws UsageError */
export function parseCount(text: string, option: string, countMax: number): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= countMax) return count;
  throw new UsageError(`${option} takes a whole number from 1 to ${countMax}, not '${text}'`);
}
