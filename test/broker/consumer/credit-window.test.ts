import { describe, expect, test } from 'vitest';

import { CreditWindow } from '../../../broker/consumer/credit-window.ts';

const bytesMax = 512 * 1_024;

/** How large a window becomes on a link, after `rounds` of it, each of which is sent as a whole. */
function settled(link: { bytesPerSecond: number; wayMs: number }, rounds = 40): CreditWindow {
  const window = new CreditWindow(bytesMax);
  for (let round = 0; round < rounds; round += 1) {
    window.arrived(link.wayMs + (window.bytes / link.bytesPerSecond) * 1_000);
  }
  return window;
}

describe('CreditWindow', () => {
  test('a fast link is filled after a few rounds, also when its way is long', () => {
    expect(settled({ bytesPerSecond: 1e8, wayMs: 1 }, 8).bytes).toBe(bytesMax);
    expect(settled({ bytesPerSecond: 1e8, wayMs: 250 }, 8).bytes).toBe(bytesMax);
  });

  test('on a link that is fast and short three rounds fill it', () => {
    expect(settled({ bytesPerSecond: 1e8, wayMs: 1 }, 3).bytes).toBe(bytesMax);
  });

  test('on 64 kbit/s at most a second of back-fill is under way for a query', () => {
    expect(settled({ bytesPerSecond: 8_000, wayMs: 55 }).bytes).toBeLessThanOrEqual(8_000);
  });

  test('a link that becomes slow is noticed, and one that is fast again is used again', () => {
    const window = settled({ bytesPerSecond: 1e8, wayMs: 1 });
    for (let round = 0; round < 10; round += 1) window.arrived(1_500);
    expect(window.bytes).toBeLessThanOrEqual(8 * 1_024);
    for (let round = 0; round < 10; round += 1) window.arrived(20);
    expect(window.bytes).toBe(bytesMax);
  });
});
