import { writeSync } from 'node:fs';

import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { StoreEngine } from '../../guest-agent/store/store-engine.ts';
import { defaultStoreOptions } from '../../guest-agent/store/store-options.ts';
import { saveOf } from './store-fixture.ts';

/**
 * Saves until it kills itself at the crash point given, the `occurrence`-th time that it is reached. Each save holds its
 * number; after each acknowledged one the number is written to standard output, as a reply would be. Every third save
 * stays held for a while, so that others overtake it.
 */
const [directory = '', crashPoint = '', occurrence = '1'] = process.argv.slice(2);
let reachedCount = 0;
const reachCrashPoint = (point: string): void => {
  if (point !== crashPoint) return;
  reachedCount += 1;
  if (reachedCount === Number(occurrence)) process.kill(process.pid, 'SIGKILL');
};
const engine = new StoreEngine(
  { clock: new SystemClock(), random: new SystemRandom(), log: silentLog, reachCrashPoint },
  { ...defaultStoreOptions, directory, synchronous: 'NORMAL', overtakeGraceMs: 0 },
);
const saveCount = 30;
for (let number = 1; number <= saveCount; number += 1) {
  const isHeld = number % 3 === 0;
  const save = saveOf('kpi', `${number}`, { handle: number, file: number, publishes: !isHeld });
  const [outcome] = engine.apply([{ ...save, filePath: null }]);
  reachCrashPoint('after-outcomes');
  if (outcome?.result === 0) writeSync(1, `${number}\n`);
  engine.tick();
  if (number % 7 === 0) {
    engine.apply([{ kind: 'publish', token: null, handle: number - (number % 3) }]);
  }
}
engine.close();
