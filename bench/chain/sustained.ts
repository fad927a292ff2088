import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { Benchmark, BenchmarkContext, Goal } from '../benchmark.ts';
import { monotonicMs } from '../running-instance.ts';
import { allStored } from './all-stored.ts';
import { tlsOnly } from './bench-chain.ts';
import { costBetween, cpuUsInAll, snapshotOf, type Cost } from './cost.ts';
import { startFedChain } from './fed-chain.ts';

const hopCount = 3;
const columnCount = 10;
const savesPerFrame = 10;
const warmUpMs = 3_000;
const protection = { ...tlsOnly, signs: true };
const mebibyte = 2 ** 20;

const goalPerSecond = 20_000;
const goalCpuUs = 30;
const goalWireBytes = 12;
const goalRelayMebibytes = 80;
/** A chain that ends later than this after the last save did not keep up. */
const keepsUpMs = 1_000;

interface Sample {
  readonly offeredPerSecond: number;
  readonly cost: Cost;
  readonly captureCpuUs: number;
  readonly relayBytesMax: number;
  readonly lost: number;
  /** From the last save until everything was stored. */
  readonly drainMs: number;
}

/** Saves of ten columns through a chain, and what each measurement costs. */
export const chainSustained: Benchmark = {
  name: 'chain-sustained',
  title: 'A chain of three hops: sustained rate and cost',
  run: async (context) => {
    const rates = context.isShort ? [5_000] : [goalPerSecond, 50_000];
    const samples: Sample[] = [];
    for (const rate of rates) samples.push(await measure(rate, context));
    const wire = await measureWire(context);
    const [first] = samples;
    return {
      tables: [costTable(samples), wireTable(wire)],
      goals: first === undefined ? [] : goals(first, wire.bytesPerMeasurement),
      remarks: [
        'the capture: guests with stores (synchronous OFF) and channels but without mounts; its CPU is not in the sum',
        'stored: counted by the primary site itself, with nobody watching',
      ],
      details: { samples: samples.map((sample) => plain(sample)), wire },
    };
  },
};

function costTable(samples: readonly Sample[]) {
  const nodes = [...(samples[0]?.cost.cpuUs.keys() ?? [])];
  return {
    title: 'CPU for each measurement, µs',
    columns: [
      'offered /s',
      'stored /s',
      'lost',
      'a frame',
      ...nodes,
      'in all',
      'capture',
      'largest relay, MiB',
      'drained, ms',
    ],
    rows: samples.map((sample) => [
      sample.offeredPerSecond,
      Math.round(sample.cost.measurementsPerSecond),
      sample.lost,
      sample.cost.measurementsPerFrame.toFixed(1),
      ...nodes.map((node) => (sample.cost.cpuUs.get(node) ?? Number.NaN).toFixed(2)),
      cpuUsInAll(sample.cost).toFixed(2),
      sample.captureCpuUs.toFixed(2),
      (sample.relayBytesMax / mebibyte).toFixed(0),
      sample.drainMs.toFixed(0),
    ]),
  };
}

function goals(sample: Sample, wireBytes: number): Goal[] {
  const { offeredPerSecond, cost, drainMs, relayBytesMax } = sample;
  const keptUp = sample.lost === 0 && drainMs <= keepsUpMs;
  return [
    {
      what: 'measurements a second that were kept up with',
      limit: Math.min(goalPerSecond, offeredPerSecond),
      bound: 'least',
      reached: keptUp ? offeredPerSecond : cost.measurementsPerSecond,
    },
    {
      what: 'CPU for each measurement over the four nodes, µs',
      limit: goalCpuUs,
      bound: 'most',
      reached: cpuUsInAll(cost),
    },
    { what: 'bytes on one hop, each', limit: goalWireBytes, bound: 'most', reached: wireBytes },
    {
      what: 'memory of a relay, MiB',
      limit: goalRelayMebibytes,
      bound: 'most',
      reached: relayBytesMax / mebibyte,
    },
  ];
}

/** One guest that makes ten saves at a time, so often that the rate is reached. */
function planFor(measurementsPerSecond: number) {
  const savesPerSecond = measurementsPerSecond / columnCount;
  const intervalMs = (savesPerFrame * 1_000) / savesPerSecond;
  return { guestCount: 1, savesPerSecond, columnCount, intervalMs };
}

async function measure(offeredPerSecond: number, context: BenchmarkContext): Promise<Sample> {
  const durationMs = context.isShort ? 5_000 : 60_000;
  context.progress(`${offeredPerSecond} measurements/s for ${durationMs / 1_000} s`);
  await using fed = await startFedChain(
    join(context.diskPath, 'chain-sustained'),
    { hopCount, protection, profileDirectory: context.profileDirectory },
    planFor(offeredPerSecond),
  );
  const { chain, fleet } = fed;
  fleet.tell('save');
  await delay(warmUpMs);
  const before = await snapshotOf(chain);
  const captureBeforeUs = fleet.cpuUs();
  let relayBytesMax = 0;
  while (monotonicMs() - before.atMs < durationMs) {
    await delay(500);
    const usage = chain.usage();
    for (const relay of chain.relays) {
      relayBytesMax = Math.max(relayBytesMax, usage.get(relay)?.residentBytes ?? 0);
    }
  }
  const after = await snapshotOf(chain);
  const captureUs = fleet.cpuUs() - captureBeforeUs;
  const stopping = fleet.savedCount();
  fleet.tell('stop');
  const stoppedMs = monotonicMs();
  const measurements = (await stopping) * columnCount;
  const stored = await allStored(chain, measurements);
  return {
    offeredPerSecond,
    cost: costBetween(before, after),
    captureCpuUs: captureUs / (after.measurements - before.measurements),
    relayBytesMax,
    lost: measurements - stored,
    drainMs: monotonicMs() - stoppedMs,
  };
}

interface Wire {
  readonly measurementsPerFrame: number;
  /** TLS and MQTT included, both directions, without headers of TCP and IP. */
  readonly bytesPerMeasurement: number;
}

async function measureWire(context: BenchmarkContext): Promise<Wire> {
  const rate = 5_000;
  context.progress(`bytes on the wire at ${rate} measurements/s`);
  await using fed = await startFedChain(
    join(context.diskPath, 'chain-wire'),
    { hopCount, protection, countsBytes: true },
    planFor(rate),
  );
  const { chain, fleet } = fed;
  fleet.tell('save');
  await delay(warmUpMs);
  const before = await snapshotOf(chain);
  const bytesBefore = chain.firstHopBytes;
  await delay(context.isShort ? 4_000 : 20_000);
  const bytes = chain.firstHopBytes - bytesBefore;
  const after = await snapshotOf(chain);
  return {
    measurementsPerFrame: costBetween(before, after).measurementsPerFrame,
    bytesPerMeasurement: bytes / (after.measurements - before.measurements),
  };
}

function wireTable(wire: Wire) {
  return {
    title: 'Bytes on the first hop: random doubles, TLS, MQTT and acknowledgements included',
    columns: ['measurements a frame', 'bytes for each measurement'],
    rows: [[wire.measurementsPerFrame.toFixed(1), wire.bytesPerMeasurement.toFixed(2)]],
  };
}

function plain({ cost, ...sample }: Sample): object {
  return {
    ...sample,
    cost: {
      ...cost,
      cpuUs: Object.fromEntries(cost.cpuUs),
      residentBytes: Object.fromEntries(cost.residentBytes),
    },
  };
}
