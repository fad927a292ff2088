import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { formatVerdict, isFlawless, SeriesCheck, verdictOf } from '../../../cli/demo/verdict.ts';

function checkOf(values: readonly number[]): SeriesCheck {
  const check = new SeriesCheck();
  for (const value of values) check.take(value);
  return check;
}

describe('verdict', () => {
  test('all that was sent, once and in order, is flawless', () => {
    const verdict = verdictOf([
      { sent: 3, check: checkOf([1, 2, 3]) },
      { sent: 2, check: checkOf([1, 2]) },
    ]);
    expect(formatVerdict(verdict)).toBe('sent 5, stored 5, lost 0, twice 0, out of order 0');
    expect(isFlawless(verdict)).toBe(true);
  });

  test('what is lost, comes twice or out of order is counted, and none of it is flawless', () => {
    const verdicts = [
      [1, 3],
      [1, 2, 2, 3],
      [1, 3, 2],
      [1, 2, 3, 4],
    ].map((values) => verdictOf([{ sent: 3, check: checkOf(values) }]));
    expect(verdicts.map(({ lost, twice, outOfOrder }) => [lost, twice, outOfOrder])).toEqual([
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [0, 0, 0],
    ]);
    expect(verdicts.map((verdict) => isFlawless(verdict))).toEqual([false, false, false, false]);
  });

  test('a run that sent nothing shows nothing', () => {
    expect(isFlawless(verdictOf([{ sent: 0, check: checkOf([]) }]))).toBe(false);
  });

  test('whatever is left out of a series is lost, to the number', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 50 })), (values) => {
        expect(checkOf(values).lost(50)).toBe(50 - values.length);
      }),
    );
  });
});
