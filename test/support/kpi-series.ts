import type { Value } from '../../common/wire/value.ts';

/** One save of a file: a row of one of the series' two tables. */
export interface SeriesRow {
  readonly table: string;
  readonly columns: readonly string[];
  readonly values: readonly Value[];
  readonly savedAtUs: number;
}

/** Rows that come together, and what the guest says after them. */
export interface SeriesStep {
  readonly rows: readonly SeriesRow[];
  readonly watermarkUs: number;
}

/** Ends of windows are multiples of it. */
const gridUs = 500_000;
const millisecondUs = 1_000;

/** Numbers from 0 to 1 that are the same in every run of a seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // mulberry32
    state = (state + 0x6d_2b_79_f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * KPIs as applications write them: `cpu` in order, `requests` with rows that come one to three steps late; bursts, equal
 * times, pauses, and in the middle a pause of a minute and a half. Each watermark lies 375 ms beyond a multiple of 500 ms,
 * so that the uncertainty of the guest's clock, which is taken from it, moves it over no end of a window.
 */
export function kpiSeries(
  seed: number,
  options: { readonly startUs: number; readonly stepCount: number; readonly stepRows: number },
): readonly SeriesStep[] {
  const random = seededRandom(seed);
  const { startUs, stepCount, stepRows } = options;
  const steps = Array.from({ length: stepCount }, (): SeriesRow[] => []);
  const watermarksUs: number[] = [];
  const level = { cpu: 50 };
  let timeUs = startUs;
  for (let step = 0; step < stepCount; step += 1) {
    for (let index = 0; index < stepRows; index += 1) {
      timeUs += pauseUs(random);
      const isCpu = random() < 0.5;
      const row = isCpu ? cpuRow(random, level, timeUs) : requestsRow(random, timeUs);
      const isLate = !isCpu && step > 0 && random() < 0.08;
      const arrival = isLate ? step + 1 + Math.floor(random() * 3) : step;
      steps[Math.min(arrival, stepCount - 1)]?.push(row);
    }
    if (step === Math.floor(stepCount / 2)) timeUs += 90_000 * millisecondUs;
    // Beyond this step's rows, before the next one's.
    watermarksUs.push(Math.ceil(timeUs / gridUs) * gridUs + gridUs * 0.75);
    timeUs += gridUs * 2;
  }
  return steps.map((rows, index) => ({ rows, watermarkUs: watermarksUs[index] ?? timeUs }));
}

function pauseUs(random: () => number): number {
  const kind = random();
  if (kind < 0.1) return 0;
  if (kind < 0.4) return Math.floor(random() * 60);
  if (kind < 0.98) return Math.floor(random() * 200 * millisecondUs);
  return Math.floor(random() * 6_000 * millisecondUs);
}

function cpuRow(random: () => number, level: { cpu: number }, savedAtUs: number): SeriesRow {
  level.cpu = Math.min(100, Math.max(-5, level.cpu + (random() - 0.5) * 30));
  const kind = random();
  let value: Value = level.cpu;
  if (kind < 0.03) value = 'n/a';
  else if (kind < 0.05) value = null;
  else if (kind < 0.3) value = Math.round(level.cpu);
  return { table: 'cpu', columns: ['ratio'], values: [value], savedAtUs };
}

function requestsRow(random: () => number, savedAtUs: number): SeriesRow {
  const total = extremeNumber(random);
  const state = ['up', 'down', null, Math.floor(random() * 3)][Math.floor(random() * 4)] ?? null;
  return { table: 'requests', columns: ['total', 'state'], values: [total, state], savedAtUs };
}

function extremeNumber(random: () => number): Value {
  const kind = random();
  const digits = Math.floor(random() * 1_000);
  const sign = random() < 0.5 ? -1 : 1;
  if (kind < 0.3) return digits * sign;
  if (kind < 0.5) return (2n ** 53n + BigInt(digits)) * BigInt(sign);
  if (kind < 0.55) return (2n ** 63n - 1n - BigInt(digits)) * BigInt(sign);
  if (kind < 0.6) return sign * Number.MIN_VALUE * (digits + 1);
  if (kind < 0.65) return sign * 1.5e308;
  if (kind < 0.95) return sign * random() * 10 ** (digits % 20);
  return 'restarting';
}
