import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { Benchmark, BenchmarkContext, Goal } from '../benchmark.ts';
import { monotonicMs } from '../running-instance.ts';
import { outOfOrder } from './arrivals.ts';
import { tlsOnly } from './bench-chain.ts';
import { MosquittoChain } from './mosquitto-chain.ts';
import { MountedChain, type Delivered, type Load } from './mount-load.ts';

const hopCount = 3;
const load: Load = { ratePerSecond: 1_000, durationMs: 14_000 };
const shortLoad: Load = { ...load, ratePerSecond: 200 };
const catchUpMaxMs = 1_000;

/** Who receives at the end of hop 1 and of hop 2: `relay-1` and `relay-2`, or brokers 1 and 2. */
type Hop = 1 | 2;
interface Step {
  readonly atMs: number;
  readonly hop: Hop;
  readonly what: 'kill' | 'run';
}

const faults: readonly { readonly name: string; readonly steps: readonly Step[] }[] = [
  {
    name: 'single: hop 1 killed, back after 3 s',
    steps: [
      { atMs: 4_000, hop: 1, what: 'kill' },
      { atMs: 7_000, hop: 1, what: 'run' },
    ],
  },
  {
    name: 'double: hop 2 away for 6 s, hop 1 killed in between, back after 1 s',
    steps: [
      { atMs: 4_000, hop: 2, what: 'kill' },
      { atMs: 8_000, hop: 1, what: 'kill' },
      { atMs: 9_000, hop: 1, what: 'run' },
      { atMs: 10_000, hop: 2, what: 'run' },
    ],
  },
];

interface Outcome {
  readonly chain: string;
  readonly fault: string;
  readonly sent: number;
  readonly stored: number;
  readonly lost: number;
  readonly twice: number;
  /** In the order in which the stream was kept; a live value may arrive before an older one that was fetched again. */
  readonly outOfOrder: number;
  /** From the last start of a process, and from its first answer, until all that was sent before is there. */
  readonly catchUpFromStartMs: number;
  readonly catchUpFromAnswerMs: number;
}

/** What two faults at 1,000 saves a second cost. */
export const chainFaults: Benchmark = {
  name: 'chain-faults',
  title: 'A chain of three hops: kill -9 at 1,000 saves a second',
  run: async (context) => {
    const outcomes: Outcome[] = [];
    const remarks: string[] = [];
    for (const { name, steps } of faults) {
      outcomes.push(await faultOurs(name, steps, context));
      const theirs = await faultTheirs(name, steps, context);
      if (typeof theirs === 'string') remarks.push(`Mosquitto was not measured: ${theirs}`);
      else outcomes.push(theirs);
    }
    return {
      tables: [
        {
          title: 'Values at the primary site',
          columns: [
            'chain',
            'fault',
            'sent',
            'stored',
            'lost',
            'twice',
            'out of order',
            'caught up after start, ms',
            'after first answer, ms',
          ],
          rows: outcomes.map((outcome) => [
            outcome.chain,
            outcome.fault,
            outcome.sent,
            outcome.stored,
            outcome.lost,
            outcome.twice,
            outcome.outOfOrder,
            milliseconds(outcome.catchUpFromStartMs),
            milliseconds(outcome.catchUpFromAnswerMs),
          ]),
        },
      ],
      goals: outcomes.filter(({ chain }) => chain === ownName).flatMap((outcome) => goals(outcome)),
      remarks,
      details: outcomes,
    };
  },
};

const ownName = 'Isobar';

function goals(outcome: Outcome): Goal[] {
  const most = (what: string, limit: number, reached: number): Goal => {
    return { what: `${outcome.fault}: ${what}`, limit, bound: 'most', reached };
  };
  return [
    most('lost', 0, outcome.lost),
    most('twice', 0, outcome.twice),
    most('out of order', 0, outcome.outOfOrder),
    most("caught up after the hop's return, ms", catchUpMaxMs, outcome.catchUpFromAnswerMs),
  ];
}

function relay(hop: Hop): string {
  return `relay-${hop}`;
}

async function faultOurs(
  fault: string,
  steps: readonly Step[],
  context: BenchmarkContext,
): Promise<Outcome> {
  context.progress(`Isobar, ${fault}`);
  const name = `chain-${fault.slice(0, 6)}`;
  await using mounted = await MountedChain.start(join(context.diskPath, name), {
    hopCount,
    protection: { ...tlsOnly, signs: true },
  });
  const { chain } = mounted;
  const { delivered, returned } = await deliverThrough(mounted, steps, context, {
    kill: (hop) => chain.kill(relay(hop)),
    run: (hop) => {
      chain.run(relay(hop));
      return chain.answers(relay(hop));
    },
  });
  const stored = mounted.storedNumbers();
  return {
    ...outcomeOf(ownName, fault, delivered, returned),
    twice: stored.length - new Set(stored).size,
    outOfOrder: outOfOrder(stored),
  };
}

async function faultTheirs(
  fault: string,
  steps: readonly Step[],
  context: BenchmarkContext,
): Promise<Outcome | string> {
  context.progress(`Mosquitto, ${fault}`);
  const name = `mosquitto-${fault.slice(0, 6)}`;
  const started = await MosquittoChain.start(join(context.diskPath, name));
  if (typeof started === 'string') return started;
  await using chain = started;
  const { delivered, returned } = await deliverThrough(chain, steps, context, {
    kill: (hop) => chain.kill(hop),
    run: (hop) => {
      chain.run(hop);
      return Promise.resolve(monotonicMs());
    },
  });
  return outcomeOf('Mosquitto x 4', fault, delivered, returned);
}

interface Returned {
  readonly startedMs: number;
  readonly answeredMs: number;
}

/** Sends the load, and takes the steps at their times meanwhile. */
async function deliverThrough(
  chain: { deliver(load: Load): Promise<Delivered> },
  steps: readonly Step[],
  context: BenchmarkContext,
  take: { kill(hop: Hop): Promise<void>; run(hop: Hop): Promise<number> },
): Promise<{ readonly delivered: Delivered; readonly returned: Returned }> {
  const startMs = monotonicMs();
  const delivering = chain.deliver(context.isShort ? shortLoad : load);
  let startedMs = Number.NaN;
  let answering = Promise.resolve(Number.NaN);
  for (const { atMs, hop, what } of steps) {
    await delay(Math.max(0, startMs + atMs - monotonicMs()));
    if (what === 'kill') {
      await take.kill(hop);
    } else {
      startedMs = monotonicMs();
      // Not awaited here: what follows is due at its own time.
      answering = take.run(hop);
      answering.catch(() => {});
    }
  }
  const answeredMs = await answering;
  return { delivered: await delivering, returned: { startedMs, answeredMs } };
}

function outcomeOf(
  chain: string,
  fault: string,
  { sentAtMs, arrivals }: Delivered,
  { startedMs, answeredMs }: Returned,
): Outcome {
  const caughtUpAfter = (fromMs: number): number =>
    Math.max(0, arrivals.completeAtMs(sentAtMs, fromMs) - fromMs);
  return {
    chain,
    fault,
    sent: Array.from(sentAtMs).filter((atMs) => !Number.isNaN(atMs)).length,
    stored: arrivals.count,
    lost: arrivals.lost(sentAtMs),
    twice: arrivals.twice,
    outOfOrder: arrivals.outOfOrder(),
    catchUpFromStartMs: caughtUpAfter(startedMs),
    catchUpFromAnswerMs: caughtUpAfter(answeredMs),
  };
}

function milliseconds(value: number): string {
  return Number.isNaN(value) ? '-' : value.toFixed(0);
}
