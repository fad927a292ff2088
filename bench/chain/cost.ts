import type { ProcessUsage } from '../machine.ts';
import { monotonicMs } from '../running-instance.ts';
import type { BenchChain } from './bench-chain.ts';

/** Counters of a chain at one moment. */
export interface Snapshot {
  readonly atMs: number;
  readonly measurements: number;
  readonly frames: number;
  readonly usage: ReadonlyMap<string, ProcessUsage>;
}

/** What one measurement cost between two moments. */
export interface Cost {
  readonly measurementsPerSecond: number;
  readonly measurementsPerFrame: number;
  /** CPU time for each measurement, µs, by node. */
  readonly cpuUs: ReadonlyMap<string, number>;
  /** Resident memory at the end, by node. */
  readonly residentBytes: ReadonlyMap<string, number>;
}

export async function snapshotOf(chain: BenchChain): Promise<Snapshot> {
  const usage = chain.usage();
  const { measurements, frames } = await chain.stored();
  return { atMs: monotonicMs(), measurements, frames, usage };
}

export function costBetween(before: Snapshot, after: Snapshot): Cost {
  const measurements = after.measurements - before.measurements;
  const cpuUs = new Map<string, number>();
  for (const [node, { cpuUs: total }] of after.usage) {
    cpuUs.set(node, (total - (before.usage.get(node)?.cpuUs ?? 0)) / measurements);
  }
  return {
    measurementsPerSecond: (measurements * 1_000) / (after.atMs - before.atMs),
    measurementsPerFrame: measurements / (after.frames - before.frames),
    cpuUs,
    residentBytes: new Map(
      [...after.usage].map(([node, { residentBytes }]) => [node, residentBytes]),
    ),
  };
}

/** Over all nodes. */
export function cpuUsInAll({ cpuUs }: Cost): number {
  return [...cpuUs.values()].reduce((total, each) => total + each, 0);
}

/** The mean over the relays of what `values` has of each node; NaN without relays. */
export function relayMean(values: ReadonlyMap<string, number>): number {
  const relays = [...values].filter(([node]) => node.startsWith('relay-'));
  return relays.reduce((total, [, value]) => total + value, 0) / relays.length;
}
