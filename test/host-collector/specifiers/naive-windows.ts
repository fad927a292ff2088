import type { Measurement } from '../../../common/wire/delivery.ts';
import type { MonitoringSpecifier } from '../../../common/wire/monitoring-specifier.ts';

/** What a window says in the end, calculated from all rows at once, with whole milliseconds as integers. */
export interface NaiveWindow {
  readonly startMs: number;
  readonly values: readonly number[];
  readonly skippedCount: number;
  readonly value: number | null;
  readonly timesUs: readonly number[];
}

/**
 * Recomputes windows of one data point the slow way: for each window, look at every row. Written from the design text,
 * with nothing of the engine.
 */
export function naiveWindows(
  specifier: MonitoringSpecifier,
  rows: readonly Measurement[],
  fromMs: number,
  untilMs: number,
): NaiveWindow[] {
  const measured = specifier.monitoringIntervalMs === 0 ? rows : sampled(specifier, rows);
  const windows: NaiveWindow[] = [];
  const widthMs = specifier.deliveryIntervalMs;
  for (let startMs = fromMs; startMs + widthMs <= untilMs; startMs += widthMs) {
    const inside = measured.filter(
      ({ timeUs }) => timeUs >= startMs * 1_000 && timeUs < (startMs + widthMs) * 1_000,
    );
    const values = inside.flatMap(({ value }) => (typeof value === 'number' ? [value] : []));
    windows.push({
      startMs,
      values,
      skippedCount: inside.length - values.length,
      value: values.length === 0 ? null : apply(specifier.format, values),
      timesUs: inside.map(({ timeUs }) => timeUs).toSorted((left, right) => left - right),
    });
  }
  return windows;
}

/** At each tick that any row could belong to: the last row after the tick before it, up to and with the tick. */
function sampled(specifier: MonitoringSpecifier, rows: readonly Measurement[]): Measurement[] {
  const stepUs = specifier.monitoringIntervalMs * 1_000;
  const ticks = new Set(rows.map(({ timeUs }) => Math.ceil(timeUs / stepUs) * stepUs));
  return [...ticks].flatMap((tickUs) => {
    const candidates = rows.filter(({ timeUs }) => timeUs > tickUs - stepUs && timeUs <= tickUs);
    let newest = candidates[0];
    for (const row of candidates) {
      if (newest === undefined || row.timeUs >= newest.timeUs) newest = row;
    }
    return newest === undefined ? [] : [newest];
  });
}

function apply(format: MonitoringSpecifier['format'], values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const at = (index: number): number => sorted[index] ?? Number.NaN;
  if (format === 'min') return at(0);
  if (format === 'max') return at(sorted.length - 1);
  if (format === 'median') {
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  }
  // Values are multiples of 1/8, so that integers give the exact sum.
  const eighths = sorted.reduce((sum, value) => sum + BigInt(value * 8), 0n);
  return Number(eighths) / 8 / sorted.length;
}
