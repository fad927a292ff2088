import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';
import { z } from 'zod';

import { compiledEntry } from '../../common/runtime/package-root.ts';
import { mustRun } from '../support/programs/run-program.ts';
import { backendObstacle, describeUnless, rootObstacle } from '../support/requirements.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

describeUnless(rootObstacle() ?? backendObstacle('dev-fuse'), 'npm run bench', () => {
  test('`npm run bench` prints and writes JSON: from close to the reader, p50, and saves lost', async () => {
    using directory = temporaryDirectory();
    const json = join(directory.path, 'figures.json');
    const { stdout } = await mustRun(process.execPath, [
      compiledEntry('bench/main.ts'),
      'latency',
      '--short',
      '--json',
      json,
      '--disk',
      directory.path,
    ]);
    expect(stdout).toMatch(/^Measured on \d+ cores .*; fdatasync of this disk \d+ µs/);
    expect(stdout).toMatch(/\| p50 from close to the reader, ms \| <= 5 \| [0-9.]+ \|/);
    expect(stdout).toMatch(/\| saves lost \| <= 0 \| 0\.00 \| yes \|/);
    const goal = z.object({ what: z.string(), limit: z.number(), reached: z.number() });
    const written = z
      .object({
        isShort: z.literal(true),
        fsync: z.object({ p50Us: z.number().positive() }),
        reports: z.object({ latency: z.object({ goals: z.array(goal) }) }),
      })
      .parse(JSON.parse(readFileSync(json, 'utf8')));
    expect(written.reports.latency.goals.map(({ what }) => what)).toEqual([
      'p50 from close to the reader, ms',
      'saves lost',
    ]);
  });
});
