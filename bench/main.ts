import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { packageRoot } from '../common/runtime/package-root.ts';
import type { Benchmark, BenchmarkReport } from './benchmark.ts';
import { chainBenchmarks } from './chain/chain.ts';
import { deliveryLatency, sustainedDelivery } from './delivery.ts';
import { endurance } from './endurance.ts';
import { growth } from './growth.ts';
import { describeMachine, measureFsync } from './machine.ts';
import { machineLine, markdownOf } from './markdown.ts';
import { saveThroughput } from './save-throughput.ts';

const benchmarks: readonly Benchmark[] = [
  saveThroughput,
  deliveryLatency,
  sustainedDelivery,
  endurance,
  growth,
  ...chainBenchmarks,
];

const usage = `usage: node dist/bench/main.js [NAME...] [--short] [--json FILE] [--disk DIRECTORY] [--profile DIRECTORY]

Benchmarks: ${benchmarks.map(({ name }) => name).join(', ')} (all of them by default).
A name also stands for those that begin with it and a hyphen: chain.
  --short           fewer and shorter rounds: shows that it works, not to be quoted
  --json FILE       every measurement (default: .cache/bench/latest.json)
  --disk DIRECTORY  where the databases are written (default: the temporary directory)
  --profile DIR     the nodes of the chains leave CPU profiles below it; the figures are worth nothing then

Prints Markdown for docs/BENCHMARKS.md; progress goes to standard error.
`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      short: { type: 'boolean', default: false },
      json: { type: 'string', default: join(packageRoot(), '.cache/bench/latest.json') },
      disk: { type: 'string', default: tmpdir() },
      profile: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const unknown = positionals.filter((name) => !benchmarks.some((known) => isMeant(name, known)));
  if (unknown.length > 0) throw new TypeError(`no benchmark ${unknown.join(', ')}`);
  const chosen = benchmarks.filter(
    (benchmark) => positionals.length === 0 || positionals.some((name) => isMeant(name, benchmark)),
  );
  const machine = describeMachine();
  const diskPath = mkdtempSync(join(values.disk, 'isobar-bench-'));
  const reports: Record<string, BenchmarkReport> = {};
  try {
    const fsync = measureFsync(diskPath);
    console.log(`Measured on ${machineLine(machine, fsync)}.\n`);
    for (const benchmark of chosen) {
      const report = await benchmark.run({
        isShort: values.short,
        diskPath,
        profileDirectory: values.profile === undefined ? undefined : resolve(values.profile),
        progress: (text) => {
          process.stderr.write(`${benchmark.name}: ${text}\n`);
        },
      });
      reports[benchmark.name] = report;
      console.log(`${markdownOf(benchmark.title, report)}\n`);
    }
    writeJson(resolve(values.json), { machine, fsync, isShort: values.short, reports });
  } finally {
    rmSync(diskPath, { recursive: true, force: true });
  }
}

function isMeant(name: string, benchmark: Benchmark): boolean {
  return benchmark.name === name || benchmark.name.startsWith(`${name}-`);
}

function writeJson(path: string, content: object): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(content, undefined, 2)}\n`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof TypeError)) throw error;
  process.stderr.write(`${error.message}\n\n${usage}`);
  process.exitCode = 2;
}
