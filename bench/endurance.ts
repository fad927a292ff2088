import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { mountAgent, type MountedAgent } from '../test/support/mounted-agent.ts';
import type { Benchmark } from './benchmark.ts';
import { usageOf } from './machine.ts';
import { median } from './statistics.ts';
import { runWriter } from './writer.ts';

const mebibyte = 2 ** 20;
const residentMaxMebibytes = 120;
/** The last quarter of the run against the second: flat, with room for the collector's saw tooth. */
const growthRatioMax = 1.1;
const idleCoreRatioMax = 0.002;
const writerCount = 4;
const filesPerWriter = 25;
const sampleIntervalMs = 1_000;

/** A million saves into 100 files, and then nothing at all. */
export const endurance: Benchmark = {
  name: 'endurance',
  title: "A million saves into 100 files: the agent's memory, and its CPU when idle",
  run: async (context) => {
    const saveCount = context.isShort ? 20_000 : 1_000_000;
    await using agent = await mountAgent({ dataParentPath: context.diskPath });
    const samples: number[] = [];
    const sampling = new AbortController();
    const sampler = sampleMemory(agent, samples, sampling.signal);
    context.progress(`${saveCount} saves into ${writerCount * filesPerWriter} files`);
    const report = await runWriter({
      directory: join(agent.mountPath, 'unencrypted'),
      writerCount,
      fileCount: filesPerWriter,
      durationMs: 20 * 60_000,
      savesMax: saveCount / writerCount,
    });
    sampling.abort();
    await sampler;
    const idleRatio = await idleCoreRatio(agent, context.isShort ? 5_000 : 30_000);
    const quarter = Math.floor(samples.length / 4);
    const second = median(samples.slice(quarter, 2 * quarter + 1));
    const last = median(samples.slice(3 * quarter));
    const largest = Math.max(...samples);
    return {
      tables: [
        {
          title: 'Resident memory of the agent in MiB, and CPU when idle',
          columns: [
            'saves',
            '/s',
            'second quarter',
            'last quarter',
            'largest',
            'idle, % of a core',
          ],
          rows: [
            [
              report.saves,
              Math.round(report.per_second),
              mebibytes(second),
              mebibytes(last),
              mebibytes(largest),
              (idleRatio * 100).toFixed(2),
            ],
          ],
        },
      ],
      goals: [
        {
          what: 'resident memory, MiB',
          limit: residentMaxMebibytes,
          bound: 'most',
          reached: largest / mebibyte,
        },
        {
          what: 'memory, last quarter over second',
          limit: growthRatioMax,
          bound: 'most',
          reached: last / second,
        },
        {
          what: 'CPU when idle, cores',
          limit: idleCoreRatioMax,
          bound: 'most',
          reached: idleRatio,
        },
      ],
      remarks: report.failures > 0 ? [`${report.failures} saves failed`] : [],
      details: { report, residentBytes: samples },
    };
  },
};

async function sampleMemory(
  agent: MountedAgent,
  samples: number[],
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    samples.push(usageOf(agent.pid).residentBytes);
    await delay(sampleIntervalMs, undefined, { signal }).catch(() => {});
  }
}

/** CPU time over elapsed time while nobody saves, after what the saves left to do is done. */
async function idleCoreRatio(agent: MountedAgent, durationMs: number): Promise<number> {
  const settleMs = 3_000;
  await delay(settleMs);
  const before = usageOf(agent.pid);
  const startMs = performance.now();
  await delay(durationMs);
  const elapsedUs = (performance.now() - startMs) * 1_000;
  return (usageOf(agent.pid).cpuUs - before.cpuUs) / elapsedUs;
}

function mebibytes(bytes: number): string {
  return (bytes / mebibyte).toFixed(0);
}
