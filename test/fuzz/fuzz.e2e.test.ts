import { describe, expect, test } from 'vitest';

import { fuzzRun, secondsInTests } from './fuzz-run.ts';
import { fuzzTargets } from './targets.ts';

const targets = fuzzTargets.filter(({ kind }) => kind === 'sockets').map(({ name }) => name);

describe('fuzzing over sockets', () => {
  test.each(targets)(
    '%s: any bytes of a peer, no crash, hang or unbounded memory; others are served afterwards',
    async (name) => {
      const run = await fuzzRun('--only', name, '--seconds', String(secondsInTests));
      console.log(run.output.trimEnd());
      expect(run).toMatchObject({ exitCode: 0 });
    },
  );
});
