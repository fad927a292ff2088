import { join } from 'node:path';

import { eventually } from '../test/support/eventually.ts';
import type { Benchmark, BenchmarkContext, BenchmarkReport } from './benchmark.ts';
import { usageOf } from './machine.ts';
import { monotonicMs, startInstance } from './running-instance.ts';
import { percentile } from './statistics.ts';
import { readStamps, runWriter, type WriterReport } from './writer.ts';

interface Load {
  readonly writerCount: number;
  readonly ratePerSecond: number;
  readonly durationMs: number;
}

interface Received {
  /** Arrival of each sequence number, from 0, by writer; undefined where nothing came. */
  readonly arrivalsMs: (number | undefined)[][];
  /** Readings of a sequence number that had come before. */
  duplicateCount: number;
  lastAtMs: number;
}

interface Outcome {
  readonly report: WriterReport;
  readonly latenciesMs: readonly number[];
  readonly lostCount: number;
  readonly duplicateCount: number;
  /** Saves that reached the reader, over the time from the first save to the last arrival. */
  readonly perSecond: number;
  /** Cores that all processes together kept busy. */
  readonly coresBusy: number;
}

const latencyP50MaxMs = 5;
const offeredPerSecond = 5_000;

/** From close's return to the reader, at a rate that no part has to queue at. */
export const deliveryLatency: Benchmark = {
  name: 'latency',
  title: "From close's return to the reader, 100 saves a second",
  run: async (context) => {
    const load = {
      writerCount: 1,
      ratePerSecond: 100,
      durationMs: context.isShort ? 3_000 : 30_000,
    };
    const outcome = await deliver(load, context);
    const p50Ms = percentile(outcome.latenciesMs, 0.5);
    return reportOf(outcome, [
      {
        what: 'p50 from close to the reader, ms',
        limit: latencyP50MaxMs,
        bound: 'most',
        reached: p50Ms,
      },
      lostGoal(outcome),
    ]);
  },
};

/** Four writers that together offer 5,000 saves a second. */
export const sustainedDelivery: Benchmark = {
  name: 'sustained',
  title: 'Four writers offering 5,000 saves a second',
  run: async (context) => {
    const load = {
      writerCount: 4,
      ratePerSecond: offeredPerSecond / 4,
      durationMs: context.isShort ? 10_000 : 60_000,
    };
    const outcome = await deliver(load, context);
    return reportOf(outcome, [lostGoal(outcome)]);
  },
};

async function deliver(load: Load, context: BenchmarkContext): Promise<Outcome> {
  await using instance = await startInstance(context.diskPath);
  // Tables, columns and connections are made by the first saves; they are not what is measured.
  await runWriter({
    directory: instance.directory,
    writerCount: load.writerCount,
    durationMs: 500,
    savesMax: 10,
  });
  const received: Received = {
    arrivalsMs: Array.from({ length: load.writerCount }, () => []),
    duplicateCount: 0,
    lastAtMs: 0,
  };
  await using _watch = instance.watch('kpi/writer-*/sequence', (reading) => {
    take(received, reading.dataPoint, Number(reading.value), reading.receivedAtMs);
  });
  await reachWatch(instance.directory, received);
  const stampsPath = join(context.diskPath, 'stamps');
  const before = usageOf(instance.pid);
  const startMs = monotonicMs();
  context.progress(
    `${load.writerCount} x ${load.ratePerSecond}/s for ${load.durationMs / 1_000} s`,
  );
  const report = await runWriter({
    directory: instance.directory,
    writerCount: load.writerCount,
    durationMs: load.durationMs,
    savesMax: Math.ceil((load.ratePerSecond * load.durationMs) / 1_000),
    ratePerSecond: load.ratePerSecond,
    stampsPath,
  });
  const savedCount = report.saves - report.failures;
  await arrival(received, savedCount);
  const elapsedMs = received.lastAtMs - startMs;
  const cpuUs = usageOf(instance.pid).cpuUs - before.cpuUs;
  const latenciesMs = readStamps(stampsPath, report).flatMap((closedAtMs, writer) =>
    [...closedAtMs].flatMap((closedMs, index) => {
      const arrivedMs = received.arrivalsMs[writer]?.[index];
      return arrivedMs === undefined || Number.isNaN(closedMs) ? [] : [arrivedMs - closedMs];
    }),
  );
  return {
    report,
    latenciesMs,
    lostCount: savedCount - latenciesMs.length,
    duplicateCount: received.duplicateCount,
    perSecond: (latenciesMs.length * 1_000) / elapsedMs,
    coresBusy: cpuUs / 1_000 / elapsedMs,
  };
}

const watchTimeoutMs = 30_000;

/** Saves until the watch shows a save, then forgets what it showed: from here on nothing may be missing. */
async function reachWatch(directory: string, received: Received): Promise<void> {
  const writerCount = received.arrivalsMs.length;
  await eventually(
    async () => {
      await runWriter({ directory, writerCount, durationMs: 200, savesMax: 1 });
      return received.arrivalsMs.every((arrivals) => arrivals.length > 0);
    },
    { timeoutMs: watchTimeoutMs, pollMs: 200 },
  );
  await untilQuiet(received);
  for (const arrivals of received.arrivalsMs) arrivals.length = 0;
  received.duplicateCount = 0;
}

const quietMs = 1_000;
const stallMaxMs = 30_000;

async function untilQuiet(received: Received): Promise<void> {
  await eventually(() => monotonicMs() - received.lastAtMs > quietMs, { timeoutMs: stallMaxMs });
}

/** Waits until `count` saves have arrived, or nothing has for `stallMaxMs`. */
async function arrival(received: Received, count: number): Promise<void> {
  const startMs = monotonicMs();
  const timeoutMs = 10 * 60_000;
  await eventually(
    () => {
      const arrivedCount = received.arrivalsMs.reduce(
        (total, arrivals) => total + arrivals.filter((at) => at !== undefined).length,
        0,
      );
      const newestMs = Math.max(received.lastAtMs, startMs);
      return arrivedCount >= count || monotonicMs() - newestMs > stallMaxMs;
    },
    { timeoutMs, pollMs: 100 },
  );
}

function take(received: Received, dataPoint: string, sequence: number, atMs: number): void {
  const writer = Number(/^kpi\/writer-(\d+)-/.exec(dataPoint)?.[1]);
  const arrivals = received.arrivalsMs[writer];
  if (arrivals === undefined) return;
  if (arrivals[sequence - 1] === undefined) arrivals[sequence - 1] = atMs;
  else received.duplicateCount += 1;
  received.lastAtMs = atMs;
}

function lostGoal(outcome: Outcome): BenchmarkReport['goals'][number] {
  return { what: 'saves lost', limit: 0, bound: 'most', reached: outcome.lostCount };
}

function reportOf(outcome: Outcome, goals: BenchmarkReport['goals']): BenchmarkReport {
  const { report, latenciesMs } = outcome;
  const milliseconds = (ratio: number): string => percentile(latenciesMs, ratio).toFixed(2);
  return {
    tables: [
      {
        title: 'Close to reader',
        columns: [
          'saves',
          'offered /s',
          'at the reader /s',
          'p50 ms',
          'p99 ms',
          'lost',
          'twice',
          'cores busy',
        ],
        rows: [
          [
            report.saves,
            Math.round(report.per_second),
            Math.round(outcome.perSecond),
            milliseconds(0.5),
            milliseconds(0.99),
            outcome.lostCount,
            outcome.duplicateCount,
            outcome.coresBusy.toFixed(2),
          ],
        ],
      },
    ],
    goals,
    remarks: report.failures > 0 ? [`${report.failures} saves failed at close`] : [],
    details: { ...outcome, latenciesMs: undefined },
  };
}
