import { array, assert, integer, property } from 'fast-check';
import { describe, expect, test } from 'vitest';

import { median, medianRatio, percentile, rotated } from '../../bench/statistics.ts';

const numbers = array(integer({ min: -1_000, max: 1_000 }), { minLength: 1, maxLength: 50 });

function rounds(figures: readonly number[]): ReadonlyMap<number, number> {
  return new Map(figures.map((figure, round) => [round, figure]));
}

describe('statistics of the benchmarks', () => {
  test('the median of an even count is the mean of the middle two', () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([9, 1, 5])).toBe(5);
    expect(median([])).toBeNaN();
  });

  test('as many values are not above a median as are not below it', () => {
    assert(
      property(numbers, (values) => {
        const middle = median(values);
        const below = values.filter((value) => value <= middle).length;
        const above = values.filter((value) => value >= middle).length;
        expect(below).toBeGreaterThanOrEqual(values.length / 2);
        expect(above).toBeGreaterThanOrEqual(values.length / 2);
      }),
    );
  });

  test('a percentile is the smallest value that the ratio of all does not exceed', () => {
    assert(
      property(numbers, integer({ min: 1, max: 100 }), (values, percent) => {
        const limit = percentile(values, percent / 100);
        const reached = (candidate: number): number =>
          values.filter((value) => value <= candidate).length / values.length;
        expect(reached(limit)).toBeGreaterThanOrEqual(percent / 100 - 1e-9);
        const nextSmaller = Math.max(...values.filter((value) => value < limit));
        expect(reached(nextSmaller)).toBeLessThan(percent / 100);
      }),
    );
  });

  test('a ratio compares within a round, so that a machine that slows down does not show', () => {
    expect(medianRatio(rounds([200, 100, 50]), rounds([100, 50, 25]))).toBe(2);
    expect(medianRatio(rounds([]), rounds([1]))).toBeNaN();
    const second = new Map([[1, 50]]);
    expect(medianRatio(rounds([200, 100, 50]), second)).toBe(2);
  });

  test('each round begins with another target, and all take part', () => {
    expect([0, 1, 2, 3].map((round) => rotated(['a', 'b', 'c'], round).join(''))).toEqual([
      'abc',
      'bca',
      'cab',
      'abc',
    ]);
  });
});
