import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { z } from 'zod';

import { compiledEntry } from '../common/runtime/package-root.ts';
import { eventually } from '../test/support/eventually.ts';
import { startProgram } from '../test/support/programs/run-program.ts';

/** All of Isobar as `isobar up` runs it, on a data directory of its own. */
export interface RunningInstance extends AsyncDisposable {
  /** Where KPI files are saved. */
  readonly directory: string;
  /** The process that all others descend from. */
  readonly pid: number;
  /** Where VMs are registered. */
  readonly collectorSocketPath: string;
  /**
   * Follows a pattern of data points as `isobar watch --json` does, from the beginning of this instance: what comes while
   * the command still starts is not missed. Every reading is handed to `take`.
   */
  watch(pattern: string, take: (reading: WatchedReading) => void): AsyncDisposable;
}

const watchedReadingSchema = z.object({
  vm: z.string(),
  dataPoint: z.string(),
  value: z.unknown(),
});
export type WatchedReading = z.output<typeof watchedReadingSchema> & {
  /** When the line arrived here; the clock of bench/writer.c's stamps. */
  readonly receivedAtMs: number;
};

const startTimeoutMs = 60_000;

/** Starts `isobar up` and resolves when it has printed where the mount is. */
export async function startInstance(diskPath: string): Promise<RunningInstance> {
  const dataPath = join(diskPath, 'instance');
  mkdirSync(dataPath, { recursive: true });
  const entry = compiledEntry('cli/main.ts');
  const up = startProgram(process.execPath, [entry, 'up', '--data-dir', dataPath]);
  try {
    await eventually(() => up.output().includes('mqtt://'), { timeoutMs: startTimeoutMs });
  } catch (cause) {
    await up[Symbol.asyncDispose]();
    throw new Error(`isobar up did not start: ${up.output()}`, { cause });
  }
  return {
    directory: join(dataPath, 'mount', 'unencrypted'),
    pid: up.pid,
    collectorSocketPath: join(dataPath, 'run', 'host-collector.sock'),
    watch: (pattern, take) => watch(entry, dataPath, pattern, take),
    [Symbol.asyncDispose]: () => up[Symbol.asyncDispose](),
  };
}

function watch(
  entry: string,
  dataPath: string,
  pattern: string,
  take: (reading: WatchedReading) => void,
): AsyncDisposable {
  const child = spawn(
    process.execPath,
    [entry, 'watch', pattern, '--json', '--since', '1h', '--data-dir', dataPath],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  createInterface({ input: child.stdout }).on('line', (line) => {
    const receivedAtMs = monotonicMs();
    take({ ...watchedReadingSchema.parse(JSON.parse(line)), receivedAtMs });
  });
  return {
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}

/** CLOCK_MONOTONIC, the same for all processes of a machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
