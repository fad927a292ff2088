// Runs the tests kind by kind, the cheap ones first, and sums up vitest's own JSON reports.
//
//   npm test [-- vitest arguments, e.g. a path]
//
// The last line is `N passed, N failed, N skipped`. Exits 1 if anything failed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const reports = join(root, '.cache', 'test');

/** Minutes that each kind may take on two cores; see vitest.config.ts for what they are. */
const budgets = [
  ['unit', 6],
  ['contract', 1],
  ['mount', 11],
  ['e2e', 9],
];
/** A kind that takes this many times its budget hangs, and is ended. */
const hangFactor = 3;

const totals = { passed: 0, failed: 0, skipped: 0 };
const failures = [];
const skips = new Map();

rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });
for (const [kind, budgetMinutes] of budgets) runKind(kind, budgetMinutes);
summarize();

function runKind(kind, budgetMinutes) {
  process.stdout.write(`\n== ${kind} tests, budget ${budgetMinutes} min\n`);
  const reportPath = join(reports, `${kind}.json`);
  const startedAtMs = performance.now();
  const result = spawnSync(
    join(root, 'node_modules', '.bin', 'vitest'),
    [
      'run',
      `--project=${kind}`,
      '--passWithNoTests',
      '--reporter=dot',
      '--reporter=json',
      `--outputFile.json=${reportPath}`,
      ...process.argv.slice(2),
    ],
    {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      timeout: budgetMinutes * hangFactor * 60_000,
      killSignal: 'SIGTERM',
    },
  );
  const minutes = (performance.now() - startedAtMs) / 60_000;
  const verdict = minutes > budgetMinutes ? 'OVER BUDGET' : 'within budget';
  process.stdout.write(`== ${kind}: ${minutes.toFixed(1)} of ${budgetMinutes} min, ${verdict}\n`);
  const failedBefore = totals.failed;
  if (existsSync(reportPath)) addReport(JSON.parse(readFileSync(reportPath, 'utf8')));
  // A run that broke without a failed test (a hook, an unhandled error, a hang) is a failure too.
  if (result.status !== 0 && totals.failed === failedBefore) {
    totals.failed += 1;
    failures.push(`${kind}: the run itself failed (${result.signal ?? `exit ${result.status}`})`);
  }
}

function addReport(report) {
  for (const file of report.testResults) {
    for (const test of file.assertionResults) addTest(relative(root, file.name), test);
    // A file that could not be loaded has no tests to fail.
    if (file.status === 'failed' && file.assertionResults.length === 0) {
      totals.failed += 1;
      failures.push(`${relative(root, file.name)}: ${file.message}`);
    }
  }
}

function addTest(file, test) {
  if (test.status === 'passed') {
    totals.passed += 1;
  } else if (test.status === 'failed') {
    totals.failed += 1;
    failures.push(`${file}: ${test.fullName.trim()}`);
  } else {
    totals.skipped += 1;
    const [, titled = 'no reason given'] = /\[skipped: (.*?)\]/.exec(test.fullName) ?? [];
    const reason = test.meta?.skipReason ?? titled;
    skips.set(reason, (skips.get(reason) ?? 0) + 1);
  }
}

function summarize() {
  process.stdout.write('\n');
  for (const [reason, count] of skips) process.stdout.write(`skipped ${count}: ${reason}\n`);
  for (const failure of failures) process.stdout.write(`failed ${failure}\n`);
  const { passed, failed, skipped } = totals;
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
  if (failed > 0 || passed === 0) process.exitCode = 1;
}
