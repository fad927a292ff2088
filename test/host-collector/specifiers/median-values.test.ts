import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  exactMedianValuesMax,
  MedianValues,
} from '../../../host-collector/specifiers/median-values.ts';

const exactMax = 16;

function medianOf(values: readonly number[]): MedianValues {
  const median = new MedianValues(undefined, exactMax);
  for (const value of values) median.add(value);
  return median;
}

/** By sorting all of them. */
function trueMedian(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

const oddCount = (minLength: number, maxLength: number): fc.Arbitrary<number[]> =>
  fc
    .array(
      fc.double({ min: -1e9, max: 1e9, noNaN: true }).filter((value) => Math.abs(value) > 1e-300),
      { minLength, maxLength },
    )
    .map((values) => (values.length % 2 === 0 ? values.slice(1) : values));

describe('MedianValues', () => {
  test('exact median up to a stated count', () => {
    expect(exactMedianValuesMax).toBe(65_536);
    fc.assert(
      fc.property(oddCount(2, exactMax), (values) => {
        const median = medianOf(values);
        expect(median.median()).toBe(trueMedian(values));
        expect(median.relativeErrorMax).toBe(0);
      }),
    );
  });

  test('beyond that count within the relative error that it says, whatever the order, in bounded memory', () => {
    fc.assert(
      fc.property(oddCount(exactMax + 2, 400), (values) => {
        const median = medianOf(values);
        const expected = trueMedian(values);
        expect(median.relativeErrorMax).toBeGreaterThan(0);
        expect(Math.abs(Number(median.median()) - expected)).toBeLessThanOrEqual(
          median.relativeErrorMax * Math.abs(expected),
        );
        expect(medianOf(values.toReversed()).median()).toBe(median.median());
        expect(median.state().values).toEqual([]);
      }),
    );
    const same = medianOf(Array.from({ length: 10_000 }, (_, index) => 1 + index / 1e9));
    expect(same.state().buckets?.counts.length).toBeLessThanOrEqual(exactMax);
  });
});
