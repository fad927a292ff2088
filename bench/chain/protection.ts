import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { Benchmark, BenchmarkContext } from '../benchmark.ts';
import { percentile } from '../statistics.ts';
import type { Protection } from './bench-chain.ts';
import { costBetween, cpuUsInAll, relayMean, snapshotOf, type Cost } from './cost.ts';
import { startFedChain } from './fed-chain.ts';

const hopCount = 3;
const columnCount = 10;
const savesPerSecond = 500;
const intervalMs = 20;
const warmUpMs = 3_000;

const steps: readonly { readonly name: string; readonly protection: Protection }[] = [
  { name: 'nothing', protection: { tls: false, signs: false, seals: false } },
  { name: '+ mutual TLS', protection: { tls: true, signs: false, seals: false } },
  { name: '+ signed frames', protection: { tls: true, signs: true, seals: false } },
  { name: '+ sealed data', protection: { tls: true, signs: true, seals: true } },
];

interface Sample {
  readonly name: string;
  readonly cost: Cost;
  readonly delaysMs: readonly number[];
}

/** Mutual TLS, signing and sealing, switched on one after another. */
export const chainProtection: Benchmark = {
  name: 'chain-protection',
  title: 'A chain of three hops: the price of protection',
  run: async (context) => {
    const samples: Sample[] = [];
    for (const step of steps) samples.push(await measure(step, context));
    const base = samples[0];
    return {
      tables: [
        {
          title: `${savesPerSecond} saves of ${columnCount} columns a second, ten at a time; CPU for each measurement, µs`,
          columns: [
            'protection',
            'a frame',
            'p50 ms',
            'p99 ms',
            'source',
            'relay',
            'primary',
            'in all',
            'ratio',
          ],
          rows: samples.map(({ name, cost, delaysMs }) => [
            name,
            cost.measurementsPerFrame.toFixed(1),
            percentile(delaysMs, 0.5).toFixed(2),
            percentile(delaysMs, 0.99).toFixed(2),
            (cost.cpuUs.get('source') ?? Number.NaN).toFixed(2),
            relayMean(cost.cpuUs).toFixed(2),
            (cost.cpuUs.get('primary') ?? Number.NaN).toFixed(2),
            cpuUsInAll(cost).toFixed(2),
            base === undefined ? '-' : (cpuUsInAll(cost) / cpuUsInAll(base.cost)).toFixed(2),
          ]),
        },
      ],
      goals: [],
      remarks: [
        'frames are signed at the source, and checked at the primary site',
        'the primary site is watched, and its CPU holds that',
      ],
      details: samples.map(({ cost, ...sample }) => ({
        ...sample,
        cost: { ...cost, cpuUs: Object.fromEntries(cost.cpuUs) },
      })),
    };
  },
};

async function measure(
  { name, protection }: (typeof steps)[number],
  context: BenchmarkContext,
): Promise<Sample> {
  context.progress(name);
  await using fed = await startFedChain(
    join(context.diskPath, 'chain-protection'),
    { hopCount, protection },
    { guestCount: 1, savesPerSecond, columnCount, intervalMs },
  );
  const { chain, fleet } = fed;
  const delaysMs: number[] = [];
  await using _watch = chain.watch('kpi/growth/at', ({ value }, atMs) => {
    delaysMs.push(atMs - Number(value) / 1_000);
  });
  fleet.tell('save');
  await delay(warmUpMs);
  delaysMs.length = 0;
  const before = await snapshotOf(chain);
  await delay(context.isShort ? 4_000 : 30_000);
  const after = await snapshotOf(chain);
  return { name, cost: costBetween(before, after), delaysMs: delaysMs.slice() };
}
