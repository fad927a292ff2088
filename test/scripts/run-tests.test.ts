import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { packageRoot } from '../../common/runtime/package-root.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

interface ReportedTest {
  readonly fullName: string;
  readonly status: 'passed' | 'failed' | 'skipped';
  readonly meta?: { readonly skipReason: string };
}

/** Runs scripts/test.mjs on a vitest that reports `tests` for the kind `unit` and nothing for the others. */
function runTests(tests: readonly ReportedTest[], vitestExitCode = 0) {
  using directory = temporaryDirectory();
  const path = (...names: readonly string[]): string => join(directory.path, ...names);
  mkdirSync(path('scripts'));
  mkdirSync(path('node_modules', '.bin'), { recursive: true });
  copyFileSync(join(packageRoot(), 'scripts', 'test.mjs'), path('scripts', 'test.mjs'));
  const report = {
    testResults: [{ name: path('test/a.test.ts'), status: 'passed', assertionResults: tests }],
  };
  const vitest = `#!${process.execPath}
    const { writeFileSync } = require('node:fs');
    if (process.argv.includes('--project=unit')) {
      const output = process.argv.find((each) => each.startsWith('--outputFile.json='));
      writeFileSync(output.split('=')[1], ${JSON.stringify(JSON.stringify(report))});
      process.exitCode = ${vitestExitCode};
    }`;
  writeFileSync(path('node_modules', '.bin', 'vitest'), vitest);
  chmodSync(path('node_modules', '.bin', 'vitest'), 0o755);
  const { status, stdout } = spawnSync(process.execPath, [path('scripts', 'test.mjs')], {
    encoding: 'utf8',
  });
  return { exitCode: status, lines: stdout.trimEnd().split('\n') };
}

describe('npm test', () => {
  test('"tests that need it are reported as skipped with the reason"; the last line sums up', () => {
    const { exitCode, lines } = runTests([
      { fullName: 'a mount [skipped: /dev/fuse is missing] works', status: 'skipped' },
      { fullName: 'a mount [skipped: /dev/fuse is missing] ends', status: 'skipped' },
      { fullName: 'vim', status: 'skipped', meta: { skipReason: 'vim is missing' } },
      { fullName: 'a sum', status: 'passed' },
    ]);
    expect(exitCode).toBe(0);
    expect(lines).toContain('skipped 2: /dev/fuse is missing');
    expect(lines).toContain('skipped 1: vim is missing');
    expect(lines.at(-1)).toBe('1 passed, 0 failed, 3 skipped');
  });

  test('"a minute budget for each kind of test, printed"', () => {
    const { lines } = runTests([{ fullName: 'a sum', status: 'passed' }]);
    for (const kind of ['unit', 'contract', 'mount', 'e2e']) {
      expect(lines.join('\n')).toMatch(
        new RegExp(
          `== ${kind} tests, budget \\d+ min[^]*== ${kind}: [\\d.]+ of \\d+ min, within budget`,
        ),
      );
    }
  });

  test.each([
    ['a test failed', [{ fullName: 'a sum', status: 'failed' }], 1],
    ['the run itself broke', [{ fullName: 'a sum', status: 'passed' }], 1],
    ['nothing ran', [], 0],
  ] as const)('exit code 1 where %s', (_what, tests, vitestExitCode) => {
    expect(runTests(tests, vitestExitCode).exitCode).toBe(1);
  });
});
