import { array, assert, integer, property, shuffledSubarray } from 'fast-check';
import { describe, expect, test } from 'vitest';

import { Arrivals, outOfOrder } from '../../../bench/chain/arrivals.ts';

describe('arrivals at the end of a chain', () => {
  test('what was sent and never came is lost; what failed to be sent is owed by nobody', () => {
    const arrivals = new Arrivals();
    arrivals.take(1, 15);
    arrivals.take(4, 45);
    expect(arrivals.count).toBe(2);
    expect(arrivals.lost([10, 20, Number.NaN, 40])).toBe(1);
  });

  test('a number that comes again counts as twice, and its first arrival stays', () => {
    const arrivals = new Arrivals();
    arrivals.take(1, 15);
    arrivals.take(1, 99);
    expect(arrivals.twice).toBe(1);
    expect(arrivals.delaysMs([10])).toEqual([5]);
    expect(arrivals.newestAtMs).toBe(99);
  });

  test('delays are those of what was sent within the time and came', () => {
    const arrivals = new Arrivals();
    for (const [sequence, atMs] of [
      [1, 11],
      [2, 25],
      [3, 31],
    ] as const) {
      arrivals.take(sequence, atMs);
    }
    expect(arrivals.delaysMs([10, 20, 30, 40], 20, 30)).toEqual([5, 1]);
  });

  test('a catch-up is over when the last value that was sent before the return has come, whatever came in between', () => {
    const arrivals = new Arrivals();
    arrivals.take(4, 60);
    arrivals.take(2, 80);
    arrivals.take(1, 70);
    arrivals.take(3, 75);
    expect(arrivals.completeAtMs([10, 20, 30, 55], 50)).toBe(80);
    expect(new Arrivals().completeAtMs([10], 50)).toBeNaN();
    expect(arrivals.outOfOrder()).toBe(3);
  });

  test('whatever the order: count, lost and twice add up', () => {
    const numbers = Array.from({ length: 40 }, (_, index) => index + 1);
    assert(
      property(
        shuffledSubarray(numbers),
        array(integer({ min: 1, max: 40 }), { maxLength: 20 }),
        (first, again) => {
          const arrivals = new Arrivals();
          for (const number of [...first, ...again]) arrivals.take(number, number);
          const distinct = new Set([...first, ...again]).size;
          expect(arrivals.count).toBe(distinct);
          expect(arrivals.lost(numbers)).toBe(40 - distinct);
          expect(arrivals.twice).toBe(first.length + again.length - distinct);
        },
      ),
    );
  });

  test('a number is out of order when it stands behind a larger one', () => {
    expect(outOfOrder([1, 2, 3])).toBe(0);
    expect(outOfOrder([1, 3, 2, 4])).toBe(1);
    expect(outOfOrder([5, 1, 2])).toBe(2);
    expect(outOfOrder([])).toBe(0);
  });
});
