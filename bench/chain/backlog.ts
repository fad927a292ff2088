import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { Benchmark, BenchmarkReport } from '../benchmark.ts';
import { monotonicMs } from '../running-instance.ts';
import { percentile } from '../statistics.ts';
import { tlsOnly } from './bench-chain.ts';
import { startFedChain } from './fed-chain.ts';

const hopCount = 3;
const columnCount = 10;
const liveSavesPerSecond = 50;
/** The backlog is made, and should be caught up, at so many times the live rate. */
const timesLive = 20;
const freshMaxMs = 1_000;
const settleMs = 3_000;
const stallMaxMs = 30_000;

interface Value {
  readonly sentAtMs: number;
  readonly cameAtMs: number;
}

/** An outage of the first relay, and how fresh the freshest values are while what it missed is fetched. */
export const chainBacklog: Benchmark = {
  name: 'chain-backlog',
  title: 'A chain of three hops: the catch-up of an outage',
  run: async (context) => {
    const outageMinutes = context.isShort ? 1 : 10;
    const outageMs = (outageMinutes * 60_000) / timesLive;
    await using fed = await startFedChain(
      join(context.diskPath, 'chain-backlog'),
      { hopCount, protection: { ...tlsOnly, signs: true } },
      { guestCount: 1, savesPerSecond: liveSavesPerSecond, columnCount },
    );
    const { chain, fleet } = fed;
    const values: Value[] = [];
    await using _watch = chain.watch('kpi/growth/at', ({ value }, cameAtMs) => {
      values.push({ sentAtMs: Number(value) / 1_000, cameAtMs });
    });
    fleet.tell('save');
    await delay(settleMs);
    context.progress(`${outageMinutes} minutes of ${liveSavesPerSecond}/s, in ${outageMs} ms`);
    await chain.kill('relay-1');
    fleet.tell(liveSavesPerSecond * timesLive);
    await delay(outageMs);
    fleet.tell(liveSavesPerSecond);
    chain.run('relay-1');
    const answeredMs = await chain.answers('relay-1');
    const caughtUpMs = await untilCaughtUp(values, answeredMs);
    await delay(settleMs);
    const stopping = fleet.savedCount();
    fleet.tell('stop');
    const saved = await stopping;
    await settled(values, saved);
    const catchUp = catchUpOf(values, { answeredMs, caughtUpMs });
    const lost = saved - values.length;
    return reportOf(catchUp, { outageMinutes, lost });
  },
};

function reportOf(
  catchUp: CatchUp,
  { outageMinutes, lost }: { readonly outageMinutes: number; readonly lost: number },
): BenchmarkReport {
  return {
    tables: [
      {
        title: `Backlog of ${outageMinutes} minutes at ${liveSavesPerSecond} saves of ${columnCount} columns a second`,
        columns: [
          'saves in the backlog',
          'caught up after, s',
          'times the live rate',
          'fresh p50 ms',
          'fresh p99 ms',
          'fresh max ms',
          'lost',
        ],
        rows: [
          [
            catchUp.backlogCount,
            (catchUp.durationMs / 1_000).toFixed(2),
            (catchUp.backlogCount / (catchUp.durationMs / 1_000) / liveSavesPerSecond).toFixed(1),
            percentile(catchUp.freshDelaysMs, 0.5).toFixed(1),
            percentile(catchUp.freshDelaysMs, 0.99).toFixed(1),
            Math.max(...catchUp.freshDelaysMs).toFixed(1),
            lost,
          ],
        ],
      },
    ],
    goals: [
      {
        what: 'delay of fresh values during the catch-up, p99, ms',
        limit: freshMaxMs,
        bound: 'most',
        reached: percentile(catchUp.freshDelaysMs, 0.99),
      },
      { what: 'lost', limit: 0, bound: 'most', reached: lost },
    ],
    remarks: [
      'the backlog is made in a twentieth of the time; the catch-up counts from the first answer of the relay',
    ],
    details: catchUp,
  };
}

interface CatchUp {
  readonly durationMs: number;
  /** Values that were sent before the relay answered, and came after. */
  readonly backlogCount: number;
  /** Of values that were sent between the first arrival and the last of the backlog. */
  readonly freshDelaysMs: readonly number[];
}

/** What `values` say about a catch-up that began at `answeredMs`. */
export function catchUpOf(
  values: readonly Value[],
  { answeredMs, caughtUpMs }: { readonly answeredMs: number; readonly caughtUpMs: number },
): CatchUp {
  const after = values.filter(({ cameAtMs }) => cameAtMs >= answeredMs);
  const firstMs = after[0]?.cameAtMs ?? Number.NaN;
  return {
    durationMs: caughtUpMs - answeredMs,
    backlogCount: after.filter(({ sentAtMs }) => sentAtMs < answeredMs).length,
    freshDelaysMs: after
      .filter(({ sentAtMs }) => sentAtMs >= firstMs && sentAtMs <= caughtUpMs)
      .map(({ sentAtMs, cameAtMs }) => cameAtMs - sentAtMs),
  };
}

/** The arrival of the last value that was sent before `answeredMs`: nothing older came for some time. */
async function untilCaughtUp(values: readonly Value[], answeredMs: number): Promise<number> {
  let lastMs = answeredMs;
  let seen = 0;
  for (;;) {
    for (; seen < values.length; seen += 1) {
      const value = values[seen];
      if (value !== undefined && value.sentAtMs < answeredMs) {
        lastMs = Math.max(lastMs, value.cameAtMs);
      }
    }
    const isOver = lastMs > answeredMs && monotonicMs() - lastMs > settleMs;
    if (isOver || monotonicMs() - lastMs > stallMaxMs) return lastMs;
    await delay(50);
  }
}

async function settled(values: readonly Value[], count: number): Promise<void> {
  const startMs = monotonicMs();
  while (values.length < count) {
    if (monotonicMs() - Math.max(startMs, values.at(-1)?.cameAtMs ?? 0) > stallMaxMs) return;
    await delay(50);
  }
}
