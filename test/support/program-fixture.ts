import assert from 'node:assert';
import { writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { z } from 'zod';

import { logLevels } from '../../common/runtime/log.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import { runProcess } from '../../common/runtime/run-process.ts';

/** A real process for tests of the life cycle; how it misbehaves is its configuration. */
const schema = z.strictObject({
  /** What nothing refers to is collected in `start`; `start` fails, `stop` fails, `stop` never ends, or it crashes once running. */
  behaviour: z
    .enum([
      'good',
      'collects-garbage',
      'fails-to-start',
      'fails-to-stop',
      'hangs-in-stop',
      'crashes',
    ])
    .default('good'),
  /** Gets a line for each step of the life cycle. */
  tracePath: z.string(),
  dataDirectory: z.string().optional(),
  logLevel: z.enum(logLevels).optional(),
});

/** Twice, with a turn of the event loop in between: objects of native code go in the second. */
async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  assert(typeof collect === 'function');
  for (let count = 0; count < 2; count += 1) {
    collect();
    await setImmediate();
  }
}

await runProcess({
  name: 'fixture',
  schema,
  dataDirectoryOf: ({ dataDirectory, tracePath }) => dataDirectory ?? dirname(tracePath),
  logLevelOf: ({ logLevel }) => logLevel ?? 'info',
  build: (config, { clock }) => {
    const trace = (step: string): void => {
      writeFileSync(config.tracePath, `${step}\n`, { flag: 'a' });
    };
    let cancelHeartbeat: NodeJS.Timeout | undefined;
    return {
      name: 'fixture',
      start: async () => {
        trace('start');
        if (config.behaviour === 'collects-garbage') await collectGarbage();
        if (config.behaviour === 'fails-to-start') {
          throw new OperatingError('port-taken', 'port 1 is taken: choose another');
        }
        cancelHeartbeat = setInterval(() => {}, 1_000);
        if (config.behaviour === 'crashes') {
          clock.after(1, () => {
            throw new Error('a bug');
          });
        }
      },
      stop: async () => {
        trace('stop');
        if (config.behaviour === 'fails-to-stop') {
          throw new OperatingError('disk-full', 'disk full');
        }
        if (config.behaviour === 'hangs-in-stop') await new Promise(() => {});
        clearInterval(cancelHeartbeat);
      },
    };
  },
});
