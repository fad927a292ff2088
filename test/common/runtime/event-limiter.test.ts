import { describe, expect, test } from 'vitest';

import { EventLimiter } from '../../../common/runtime/event-limiter.ts';
import { createLog, type LogFields } from '../../../common/runtime/log.ts';
import type { Quota } from '../../../common/runtime/token-bucket.ts';

const quota: Quota = { burst: 100, perSecond: 5 };

function admitted(limiter: EventLimiter, key: string, times: number): number {
  return Array.from({ length: times }, () => limiter.admit(key, quota)).filter(
    (count) => count !== undefined,
  ).length;
}

function limitedLog() {
  const clock = { nowMs: 0 };
  const lines: LogFields[] = [];
  const write = (line: string): void => {
    lines.push(JSON.parse(line) as LogFields);
  };
  const log = createLog('part', 'info', { write }, new EventLimiter(() => clock.nowMs));
  return { clock, lines, log };
}

describe('EventLimiter', () => {
  test('an event is logged so many times at once and so many a second, others on their own', () => {
    let nowMs = 0;
    const limiter = new EventLimiter(() => nowMs);
    expect(admitted(limiter, 'refused', 1_000)).toBe(100);
    expect(admitted(limiter, 'other', 1)).toBe(1);
    nowMs = 2_000;
    expect(admitted(limiter, 'refused', 1_000)).toBe(10);
    nowMs = 3_600_000;
    expect(admitted(limiter, 'refused', 1_000)).toBe(100);
  });

  test('what is logged of invented names has a bound too, and takes no memory without end', () => {
    const limiter = new EventLimiter(() => 0);
    let count = 0;
    for (let index = 0; index < 5_000; index += 1) count += admitted(limiter, `event ${index}`, 1);
    expect(count).toBe(1_024 + 100);
  });
});

describe('a log', () => {
  test('one neighbour’s warnings fill no log, and keep nobody else’s out of it', () => {
    const { lines, log } = limitedLog();
    for (let index = 0; index < 150; index += 1) log.warn('refused', { relation: 'a-b' });
    log.child({ vm: 'vm1' }).warn('refused', { relation: 'a-c' });
    log.error('broken', { relation: 'a-b' });
    expect(lines).toHaveLength(20 + 2);
  });

  test('what was left out is counted in the next one', () => {
    const { clock, lines, log } = limitedLog();
    for (let index = 0; index < 150; index += 1) log.warn('refused');
    clock.nowMs = 5_000;
    log.warn('refused');
    expect(lines.at(-1)).toMatchObject({ event: 'refused', suppressedCount: 130 });
  });

  test('the life cycle of many neighbours is there', () => {
    const { lines, log } = limitedLog();
    for (let index = 0; index < 90; index += 1) log.info('subscribed', { relation: 'a-b' });
    expect(lines).toHaveLength(90);
  });
});
