import type { Benchmark, BenchmarkContext, BenchmarkReport, Goal, Table } from './benchmark.ts';
import { durabilities, type Durability, saveTargets, type SaveTarget } from './save-targets.ts';
import { median, medianRatio, rotated } from './statistics.ts';
import { runWriter } from './writer.ts';

/** One target in one round. */
export interface SaveSample {
  readonly target: string;
  readonly durability: Durability;
  readonly writerCount: number;
  readonly round: number;
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly failures: number;
}

interface SavePlan {
  readonly roundCount: number;
  readonly durationMs: number;
  readonly warmUpMs: number;
  readonly writerCounts: readonly number[];
}

const fullPlan: SavePlan = {
  roundCount: 5,
  durationMs: 2_000,
  // An agent runs for months; its first seconds, until its code is compiled, are not what is asked.
  warmUpMs: 3_000,
  writerCounts: [1, 4, 16],
};
const shortPlan: SavePlan = { ...fullPlan, roundCount: 2, durationMs: 400, warmUpMs: 200 };

const savesMax = 500_000;
const peer = 'C libfuse3';
/** The least ratio of saves a second to the peer's at FULL, by number of writers. */
const peerRatios: ReadonlyMap<number, number> = new Map([
  [1, 0.8],
  [4, 1.3],
  [16, 2],
]);
const nativeRatio = 1.5;

/** open + write + close of a two-line CSV, by 1, 4 and 16 processes each on its own file. */
export const saveThroughput: Benchmark = {
  name: 'saves',
  title: 'Saves a second: open, write, close',
  run: async (context) => {
    const plan = context.isShort ? shortPlan : fullPlan;
    const samples: SaveSample[] = [];
    const remarks = new Set<string>();
    for (const durability of durabilities) {
      for (let round = 0; round < plan.roundCount; round += 1) {
        for (const target of rotated(saveTargets(context.diskPath), round)) {
          try {
            samples.push(...(await measure(target, durability, round, plan, context)));
          } catch (error) {
            remarks.add(`${target.name} was not measured: ${reasonOf(error)}`);
          }
        }
      }
    }
    return reportOf(samples, remarks, plan);
  },
};

/** Medians and ratios of all rounds, and the goals held against them. */
export function reportOf(
  samples: readonly SaveSample[],
  remarks: ReadonlySet<string>,
  plan: SavePlan = fullPlan,
): BenchmarkReport {
  const failures = samples
    .filter((sample) => sample.failures > 0)
    .map(
      (sample) =>
        `${sample.target} at ${sample.durability}: ${sample.failures} saves failed in one round`,
    );
  return {
    tables: durabilities.map((durability) => tableOf(samples, durability, plan)),
    goals: goalsOf(samples, plan),
    remarks: [...new Set([...remarks, ...failures])],
    details: samples,
  };
}

/** One round of one target: opened afresh, warmed up, then each number of writers. */
async function measure(
  target: SaveTarget,
  durability: Durability,
  round: number,
  plan: SavePlan,
  context: BenchmarkContext,
): Promise<SaveSample[]> {
  await using open = await target.open(durability);
  await runWriter({
    directory: open.directory,
    writerCount: 2,
    durationMs: plan.warmUpMs,
    savesMax,
  });
  const samples: SaveSample[] = [];
  for (const writerCount of plan.writerCounts) {
    const report = await runWriter({
      directory: open.directory,
      writerCount,
      durationMs: plan.durationMs,
      savesMax,
    });
    context.progress(
      `${durability} round ${round + 1} ${target.name} x${writerCount}: ${Math.round(report.per_second)}/s`,
    );
    samples.push({
      target: target.name,
      durability,
      writerCount,
      round,
      perSecond: report.per_second,
      p50Us: report.p50_us,
      p99Us: report.p99_us,
      failures: report.failures,
    });
  }
  return samples;
}

function tableOf(samples: readonly SaveSample[], durability: Durability, plan: SavePlan): Table {
  const own = samples.filter((sample) => sample.durability === durability);
  const targets = [...new Set(own.map((sample) => sample.target))];
  return {
    title: `${durability}, medians of ${plan.roundCount} interleaved rounds`,
    columns: [
      'target',
      ...plan.writerCounts.flatMap((count) => [
        `${count} at once: /s`,
        'p50 µs',
        'p99 µs',
        'ratio to C',
      ]),
    ],
    rows: targets.map((target) => [
      target,
      ...plan.writerCounts.flatMap((writerCount) => {
        const cell = own.filter(
          (sample) => sample.target === target && sample.writerCount === writerCount,
        );
        return [
          Math.round(median(cell.map((sample) => sample.perSecond))),
          Math.round(median(cell.map((sample) => sample.p50Us))),
          Math.round(median(cell.map((sample) => sample.p99Us))),
          ratio(own, target, peer, writerCount).toFixed(2),
        ];
      }),
    ]),
  };
}

function goalsOf(samples: readonly SaveSample[], plan: SavePlan): Goal[] {
  const full = samples.filter((sample) => sample.durability === 'FULL');
  return plan.writerCounts.flatMap((writerCount) => {
    const goals: readonly (readonly [other: string, limit: number | undefined])[] = [
      [peer, peerRatios.get(writerCount)],
      ['fuse-native', nativeRatio],
    ];
    return goals.flatMap(([other, limit]): Goal[] => {
      const reached = ratio(full, 'dev-fuse', other, writerCount);
      if (limit === undefined) return [];
      const what = `dev-fuse over ${other} at FULL, writers: ${writerCount}`;
      return [{ what, limit, bound: 'least', reached }];
    });
  });
}

function ratio(
  samples: readonly SaveSample[],
  target: string,
  other: string,
  writerCount: number,
): number {
  const rates = (name: string): ReadonlyMap<number, number> =>
    new Map(
      samples
        .filter((sample) => sample.target === name && sample.writerCount === writerCount)
        .map((sample) => [sample.round, sample.perSecond]),
    );
  return medianRatio(rates(target), rates(other));
}

const reasonCharactersMax = 300;

function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error))
    .trim()
    .split('\n')
    .join(' ')
    .slice(0, reasonCharactersMax);
}
