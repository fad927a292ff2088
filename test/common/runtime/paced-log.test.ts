import { describe, expect, test } from 'vitest';

import type { LogFields } from '../../../common/runtime/log.ts';
import { createLog } from '../../../common/runtime/log.ts';
import { PacedLog } from '../../../common/runtime/paced-log.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function pacedLog(): { log: PacedLog; clock: ManualClock; written: LogFields[] } {
  const clock = new ManualClock();
  const written: LogFields[] = [];
  const log = createLog('test', 'debug', {
    write: (line) => {
      written.push(JSON.parse(line) as LogFields);
    },
  });
  return { log: new PacedLog(log, clock, { burst: 2, perSecond: 1 }), clock, written };
}

describe('PacedLog', () => {
  test('one neighbour’s warnings fill no log, and keep nobody else’s out of it', () => {
    const { log, written } = pacedLog();
    for (let index = 0; index < 100; index += 1) log.warn('frame-refused', { relation: 'a' });
    log.warn('frame-refused', { relation: 'b' });
    log.error('hash-chain-broken', { relation: 'a' });
    expect(written.map(({ event, relation }) => [event, relation])).toEqual([
      ['frame-refused', 'a'],
      ['frame-refused', 'a'],
      ['frame-refused', 'b'],
      ['hash-chain-broken', 'a'],
    ]);
  });

  test('what was left out is counted in the next one', async () => {
    const { log, clock, written } = pacedLog();
    for (let index = 0; index < 10; index += 1) log.warn('frame-refused', { relation: 'a' });
    await clock.advance(1_000);
    log.child({ part: 'consumer' }).warn('frame-refused', { relation: 'a' });
    log.warn('frame-refused', { relation: 'a' });
    expect(written.map(({ leftOutCount }) => leftOutCount)).toEqual([undefined, undefined, 8]);
  });

  test('what is written of invented names has a bound too', () => {
    const { log, written } = pacedLog();
    for (let index = 0; index < 5_000; index += 1) {
      log.warn('frame-refused', { relation: `invented-${index}` });
    }
    expect(written.length).toBeLessThan(1_100);
  });

  test('the life cycle is never left out', () => {
    const { log, written } = pacedLog();
    for (let index = 0; index < 10; index += 1) log.info('subscribed', { relation: 'a' });
    expect(written).toHaveLength(10);
  });
});
