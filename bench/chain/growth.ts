import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { Benchmark, BenchmarkContext } from '../benchmark.ts';
import { percentile } from '../statistics.ts';
import { Arrivals } from './arrivals.ts';
import { BenchChain, tlsOnly } from './bench-chain.ts';
import { costBetween, relayMean, snapshotOf } from './cost.ts';
import { allArrived } from './mount-load.ts';

const hopCounts = [1, 2, 3, 5, 10];
const streamCounts = [10, 100, 1_000, 10_000];
/** Over all streams: what grows is their number, not the load. */
const framesPerSecond = 200;
const rowColumns = 2;
const warmUpMs = 2_000;
const mebibyte = 2 ** 20;

interface Sample {
  readonly hopCount: number;
  readonly streamCount: number;
  readonly sent: number;
  readonly lost: number;
  readonly delaysMs: readonly number[];
  /** CPU time for each frame in the mean of the relays, µs; NaN without relays. */
  readonly relayCpuUs: number;
  readonly primaryCpuUs: number;
  readonly relayBytes: number;
}

/** What a longer chain and more streams cost, at the same load in all. */
export const chainGrowth: Benchmark = {
  name: 'chain-growth',
  title: `Chains of 1 to 10 hops, 10 to 10,000 streams, ${framesPerSecond} frames a second in all`,
  run: async (context) => {
    const hops: Sample[] = [];
    const chosenHops = context.isShort ? [1, 3, 10] : hopCounts;
    for (const hopCount of chosenHops) {
      hops.push(await measure({ hopCount, streamCount: 1 }, context));
    }
    const streams: Sample[] = [];
    const chosenStreams = context.isShort ? [10, 1_000] : streamCounts;
    for (const streamCount of chosenStreams) {
      streams.push(await measure({ hopCount: 3, streamCount }, context));
    }
    return {
      tables: [
        table('hops', hops, ({ hopCount }) => hopCount),
        table('streams', streams, ({ streamCount }) => streamCount),
      ],
      goals: [...hops, ...streams].map(({ hopCount, streamCount, lost }) => ({
        what: `frames lost, ${hopCount} hops, ${streamCount} streams`,
        limit: 0,
        bound: 'most',
        reached: lost,
      })),
      remarks: [
        'the source makes frames up and commits them as a collector does; mutual TLS on every hop',
      ],
      details: [...hops, ...streams],
    };
  },
};

function table(what: string, samples: readonly Sample[], key: (sample: Sample) => number) {
  return {
    title: `Growth with ${what}`,
    columns: [
      what,
      'frames',
      'lost',
      'p50 ms',
      'p99 ms',
      'CPU µs a frame and relay',
      'CPU µs a frame, primary',
      'MiB a relay',
    ],
    rows: samples.map((sample) => [
      key(sample),
      sample.sent,
      sample.lost,
      percentile(sample.delaysMs, 0.5).toFixed(2),
      percentile(sample.delaysMs, 0.99).toFixed(2),
      number(sample.relayCpuUs),
      number(sample.primaryCpuUs),
      number(sample.relayBytes / mebibyte),
    ]),
  };
}

function number(value: number): string {
  return Number.isNaN(value) ? '-' : value.toFixed(0);
}

async function measure(
  { hopCount, streamCount }: { readonly hopCount: number; readonly streamCount: number },
  context: BenchmarkContext,
): Promise<Sample> {
  const durationMs = context.isShort ? 4_000 : 30_000;
  context.progress(`${hopCount} hops, ${streamCount} streams for ${durationMs / 1_000} s`);
  const directory = join(context.diskPath, `chain-growth-${hopCount}-${streamCount}`);
  const chain = new BenchChain(directory, { hopCount, streamCount, protection: tlsOnly });
  try {
    await chain.start();
    const arrivals = new Arrivals();
    const delaysMs: number[] = [];
    // Arrivals are known by their times of sending, which differ.
    await using _times = chain.watch('kpi/growth/column2', ({ value }, atMs) => {
      delaysMs.push(atMs - Number(value) / 1_000);
    });
    await using _numbers = chain.watch('kpi/growth/column1', ({ value }, atMs) => {
      arrivals.take(Number(value), atMs);
    });
    chain.source.send(framesPerSecond);
    await delay(warmUpMs);
    delaysMs.length = 0;
    const before = await snapshotOf(chain);
    await delay(durationMs);
    const after = await snapshotOf(chain);
    const measured = delaysMs.slice();
    const answer = once(chain.source, 'message');
    chain.source.send(0);
    const sent = Number((await answer)[0]);
    await allArrived(arrivals, sent);
    const cost = costBetween(before, after);
    return {
      hopCount,
      streamCount,
      sent,
      lost: sent - arrivals.count,
      delaysMs: measured,
      relayCpuUs: relayMean(cost.cpuUs) * rowColumns,
      primaryCpuUs: (cost.cpuUs.get('primary') ?? Number.NaN) * rowColumns,
      relayBytes: relayMean(cost.residentBytes),
    };
  } finally {
    await chain[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  }
}
