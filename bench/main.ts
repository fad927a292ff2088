import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { packageRoot } from '../common/runtime/package-root.ts';
import type { Benchmark, BenchmarkReport } from './benchmark.ts';
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
];

const usage = `usage: node dist/bench/main.js [NAME...] [--short] [--json FILE] [--disk DIRECTORY]

Benchmarks: ${benchmarks.map(({ name }) => name).join(', ')} (all of them by default).
  --short           fewer and shorter rounds: shows that it works, not to be quoted
  --json FILE       every measurement (default: .cache/bench/latest.json)
  --disk DIRECTORY  where the databases are written (default: the temporary directory)

Prints Markdown for docs/BENCHMARKS.md; progress goes to standard error.
`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      short: { type: 'boolean', default: false },
      json: { type: 'string', default: join(packageRoot(), '.cache/bench/latest.json') },
      disk: { type: 'string', default: tmpdir() },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const unknown = positionals.filter((name) => !benchmarks.some((known) => known.name === name));
  if (unknown.length > 0) throw new TypeError(`no benchmark ${unknown.join(', ')}`);
  const chosen = benchmarks.filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
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
