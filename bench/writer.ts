import { readFileSync } from 'node:fs';

import { z } from 'zod';

import { compileC } from '../test/support/programs/compile-c.ts';
import { mustRun } from '../test/support/programs/run-program.ts';

export interface WriterPlan {
  readonly directory: string;
  readonly writerCount: number;
  /** Files of each writer, saved in turn. */
  readonly fileCount?: number;
  readonly durationMs: number;
  /** Saves of each writer, at most. */
  readonly savesMax: number;
  /** Saves a second that each writer offers; as fast as it can when absent. */
  readonly ratePerSecond?: number;
  /** Where the times of the closes go; see bench/writer.c. */
  readonly stampsPath?: string;
}

const writerReportSchema = z.strictObject({
  saves: z.int(),
  failures: z.int(),
  elapsed_us: z.number(),
  per_second: z.number(),
  p50_us: z.number(),
  p99_us: z.number(),
  max_us: z.number(),
  counts: z.array(z.int()),
});
export type WriterReport = z.output<typeof writerReportSchema>;

/** Beyond the planned duration: a writer may wait for its last close. */
const graceMs = 60_000;

/** Runs bench/writer.c to its end. @throws Error when it fails; failed saves are counted in the report instead. */
export async function runWriter(plan: WriterPlan): Promise<WriterReport> {
  const program = await compileC('bench/writer.c');
  const { stdout } = await mustRun(
    program,
    [
      plan.directory,
      String(plan.writerCount),
      String(plan.fileCount ?? 1),
      String(plan.durationMs),
      String(plan.savesMax),
      String(plan.ratePerSecond ?? 0),
      ...(plan.stampsPath === undefined ? [] : [plan.stampsPath]),
    ],
    { timeoutMs: plan.durationMs + graceMs },
  );
  return writerReportSchema.parse(JSON.parse(stdout));
}

/** The monotonic milliseconds at which each save's close returned, by writer and sequence (from 0); NaN: it failed. */
export function readStamps(path: string, report: WriterReport): readonly Float64Array[] {
  const bytes = readFileSync(path);
  let offset = 0;
  return report.counts.map((count) => {
    const closedAtMs = new Float64Array(count);
    for (let index = 0; index < count; index += 1, offset += 8) {
      const stampNs = bytes.readBigInt64LE(offset);
      closedAtMs[index] = stampNs === 0n ? Number.NaN : Number(stampNs) / 1e6;
    }
    return closedAtMs;
  });
}
