import { describe, expect, test } from 'vitest';

import { fuzzRun, secondsInTests } from './fuzz-run.ts';
import { fuzzTargets } from './targets.ts';

const targets = fuzzTargets.filter(({ kind }) => kind === 'process').map(({ name }) => name);
const timeoutMs = 120_000;

describe('fuzzing', () => {
  test.each(targets)(
    '%s: any bytes, no crash, hang or unbounded memory; valid input is served afterwards',
    async (name) => {
      const run = await fuzzRun('--only', name, '--seconds', String(secondsInTests));
      console.log(run.output.trimEnd());
      expect(run).toMatchObject({ exitCode: 0 });
    },
    timeoutMs,
  );

  test.each([
    ['throws', 'as it should'],
    ['strays', 'nobody waits for this'],
    ['works', 'ms of processor time'],
    ['hangs', 'hangs for 3 s'],
    ['grows', 'memory grew by'],
    ['exits', 'ends by 7'],
  ])(
    'a target that %s is found, and the input kept for a replay',
    async (what, reason) => {
      const name = `broken-${what}`;
      const patience = what === 'hangs' ? ['--silence', '3'] : [];
      const run = await fuzzRun('--only', name, '--seconds', '1', ...patience);
      expect(run.exitCode).toBe(1);
      expect(run.output).toContain(reason);
      expect(run.output).toMatch(
        /npm run fuzz -- --only broken-\w+ --replay \.cache\/fuzz\/.+\.bin/,
      );
    },
    timeoutMs,
  );

  test('a wrong option is told with the usage', async () => {
    const run = await fuzzRun('--only', 'nothing');
    expect(run.exitCode).toBe(2);
    expect(run.output).toContain('no target nothing');
  });
});
