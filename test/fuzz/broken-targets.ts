import assert from 'node:assert';
import { setImmediate as turn } from 'node:timers/promises';

import type { FuzzTarget } from './fuzz-target.ts';

const kept: Buffer[] = [];

/** Each fails in its own way, at once or after some inputs, so that a test sees each kind of failure found. */
const failures: Readonly<Record<string, () => void | Promise<void>>> = {
  throws: () => {
    assert.fail('as it should');
  },
  strays: () => {
    setImmediate(() => {
      throw new Error('nobody waits for this');
    });
  },
  works: () => {
    const beganAt = process.cpuUsage();
    while (process.cpuUsage(beganAt).user < 1_200_000);
  },
  hangs: () => {
    for (;;);
  },
  grows: () => {
    if (kept.length < 4_096) kept.push(Buffer.alloc(65_536));
  },
  exits: () => {
    process.exit(7);
  },
};

/** Named `broken-WHAT`; not among the targets that are run by default. */
export const brokenTargets: readonly FuzzTarget[] = Object.entries(failures).map(([name, run]) => ({
  name: `broken-${name}`,
  growthBytesMax: 524_288,
  start: () =>
    Promise.resolve({
      samples: [Buffer.from('sample')],
      run: async () => {
        await run();
        await turn();
      },
      checkStillWorks: () => Promise.resolve(),
      stop: () => Promise.resolve(),
    }),
}));
