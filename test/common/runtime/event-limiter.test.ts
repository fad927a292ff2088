import { describe, expect, test } from 'vitest';

import { EventLimiter } from '../../../common/runtime/event-limiter.ts';
import { createLog } from '../../../common/runtime/log.ts';

function admitted(limiter: EventLimiter, key: string, times: number): number {
  return Array.from({ length: times }, () => limiter.admit(key)).filter(
    (count) => count !== undefined,
  ).length;
}

describe('EventLimiter', () => {
  test('an event is logged a hundred times at once and five times a second, others on their own', () => {
    let nowMs = 0;
    const limiter = new EventLimiter(() => nowMs);
    expect(admitted(limiter, 'refused', 1_000)).toBe(100);
    expect(admitted(limiter, 'other', 1)).toBe(1);
    nowMs = 2_000;
    expect(admitted(limiter, 'refused', 1_000)).toBe(10);
    nowMs = 3_600_000;
    expect(admitted(limiter, 'refused', 1_000)).toBe(100);
  });

  test('keys without end take no memory without end', () => {
    const limiter = new EventLimiter(() => 0);
    for (let index = 0; index < 5_000; index += 1) limiter.admit(`event ${index}`);
    expect(admitted(limiter, 'event 0', 1)).toBe(1);
  });

  test('a log says how many events it left out, each neighbour’s apart', () => {
    let nowMs = 0;
    const lines: string[] = [];
    const limiter = new EventLimiter(() => nowMs);
    const write = (line: string): void => {
      lines.push(line);
    };
    const log = createLog('part', 'warn', { write }, limiter);
    for (let index = 0; index < 150; index += 1) log.warn('refused', { relation: 'a-b' });
    log.child({ vm: 'vm1' }).warn('refused', { relation: 'a-c' });
    expect(lines).toHaveLength(101);
    nowMs = 1_000;
    log.warn('refused', { relation: 'a-b' });
    const last: unknown = JSON.parse(lines.at(-1) ?? '');
    expect(last).toMatchObject({ event: 'refused', suppressedCount: 50 });
  });
});
