import { describe, expect, test } from 'vitest';

import { PublishPacer } from '../../../broker/mqtt/publish-pacer.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function passAll(pacer: PublishPacer, count: number, passed: number[]): void {
  for (let message = passed.length; message < count; message += 1) {
    pacer.pass(() => {
      passed.push(message);
    });
  }
}

describe('PublishPacer', () => {
  test('messages beyond the rate wait, in order, and none is lost', async () => {
    const clock = new ManualClock();
    const pacer = new PublishPacer(clock, { burst: 10, perSecond: 100 });
    const passed: number[] = [];
    passAll(pacer, 110, passed);
    expect(passed).toHaveLength(10);
    await clock.advance(500);
    expect(passed.length).toBeGreaterThanOrEqual(59);
    expect(passed.length).toBeLessThanOrEqual(60);
    await clock.advance(600);
    expect(passed).toEqual(Array.from({ length: 110 }, (_, message) => message));
  });

  test('however much the rate allows at once, others have their turn in between', async () => {
    const clock = new ManualClock();
    const pacer = new PublishPacer(clock, { burst: 1_000, perSecond: 1_000_000 });
    const passed: number[] = [];
    passAll(pacer, 1_100, passed);
    const before = passed.length;
    await clock.advance(5);
    expect(passed.length - before).toBe(16);
  });
});
