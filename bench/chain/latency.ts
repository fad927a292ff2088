import { join } from 'node:path';

import type { Benchmark, BenchmarkContext } from '../benchmark.ts';
import { percentile } from '../statistics.ts';
import { tlsOnly } from './bench-chain.ts';
import { MosquittoChain } from './mosquitto-chain.ts';
import { MountedChain, type Delivered, type Load } from './mount-load.ts';

const hopCount = 3;
const ratePerSecond = 200;
const p50MaxMs = 5;
const p99MaxMs = 50;

/** From the return of close at the source to the value at the primary site, at a rate that no part has to queue at. */
export const chainLatency: Benchmark = {
  name: 'chain-latency',
  title: 'A chain of three hops: latency at 200 saves a second',
  run: async (context) => {
    const load = { ratePerSecond, durationMs: context.isShort ? 4_000 : 60_000 };
    const ours = await deliverOurs(load, context);
    const theirs = await deliverTheirs(load, context);
    const peer = typeof theirs === 'string' ? undefined : delaysOf(theirs);
    const own = delaysOf(ours);
    const ratio = (share: number): string =>
      peer === undefined ? '-' : (percentile(own, share) / percentile(peer, share)).toFixed(2);
    return {
      tables: [
        {
          title: 'From the save to the value',
          columns: ['chain', 'values', 'lost', 'p50 ms', 'p95 ms', 'p99 ms'],
          rows: [
            ['Isobar: mutual TLS, signed', ...latencyCells(ours)],
            ...(typeof theirs === 'string'
              ? []
              : [['Mosquitto x 4: no TLS, nothing stored', ...latencyCells(theirs)]]),
            ['ratio', '', '', ratio(0.5), ratio(0.95), ratio(0.99)],
          ],
        },
      ],
      goals: [
        { what: 'p50, ms', limit: p50MaxMs, bound: 'most', reached: percentile(own, 0.5) },
        { what: 'p99, ms', limit: p99MaxMs, bound: 'most', reached: percentile(own, 0.99) },
      ],
      remarks: typeof theirs === 'string' ? [`Mosquitto was not measured: ${theirs}`] : [],
      details: { load, ours: own, mosquitto: peer ?? null },
    };
  },
};

async function deliverOurs(load: Load, context: BenchmarkContext): Promise<Delivered> {
  context.progress(`${load.ratePerSecond}/s for ${load.durationMs / 1_000} s`);
  await using mounted = await MountedChain.start(join(context.diskPath, 'chain-latency'), {
    hopCount,
    protection: { ...tlsOnly, signs: true },
    profileDirectory: context.profileDirectory,
  });
  return await mounted.deliver(load);
}

async function deliverTheirs(load: Load, context: BenchmarkContext): Promise<Delivered | string> {
  context.progress('the same through Mosquitto');
  const chain = await MosquittoChain.start(join(context.diskPath, 'mosquitto-latency'));
  if (typeof chain === 'string') return chain;
  await using running = chain;
  return await running.deliver(load);
}

function delaysOf({ sentAtMs, arrivals }: Delivered): number[] {
  return arrivals.delaysMs(sentAtMs);
}

function latencyCells(delivered: Delivered): (string | number)[] {
  const delays = delaysOf(delivered);
  return [
    delays.length,
    delivered.arrivals.lost(delivered.sentAtMs),
    ...[0.5, 0.95, 0.99].map((share) => percentile(delays, share).toFixed(2)),
  ];
}
