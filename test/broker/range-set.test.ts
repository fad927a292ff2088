import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RangeSet } from '../../broker/range-set.ts';

const range = fc
  .tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 9 }))
  .map(([fromSeq, more]) => ({ fromSeq, throughSeq: fromSeq + more }));
const step = fc.record({ adds: fc.boolean(), range });

describe('RangeSet', () => {
  test('behaves as a set of numbers whatever is added and deleted', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const ranges = new RangeSet();
        const model = new Set<number>();
        for (const { adds, range: changed } of steps) {
          if (adds) ranges.addRange(changed.fromSeq, changed.throughSeq);
          else ranges.deleteRange(changed.fromSeq, changed.throughSeq);
          for (let seq = changed.fromSeq; seq <= changed.throughSeq; seq += 1) {
            if (adds) model.add(seq);
            else model.delete(seq);
          }
        }
        const all = Array.from({ length: 75 }, (_, index) => index + 1);
        expect(all.filter((seq) => ranges.has(seq))).toEqual(all.filter((seq) => model.has(seq)));
        const missing = all.filter((seq) => !model.has(seq));
        expect(
          ranges.gaps(1, 75).flatMap((gap) => all.slice(gap.fromSeq - 1, gap.throughSeq)),
        ).toEqual(missing);
        expect(ranges.contiguousThroughSeq).toBe((missing[0] ?? 76) - 1);
        expect(
          ranges.ranges.every(
            (item, index) =>
              index === 0 || item.fromSeq > (ranges.ranges[index - 1]?.throughSeq ?? 0) + 1,
          ),
        ).toBe(true);
      }),
    );
  });

  test('tells whether a number is new', () => {
    const ranges = new RangeSet();
    expect([ranges.add(2), ranges.add(2), ranges.add(1), ranges.add(3)]).toEqual([
      true,
      false,
      true,
      true,
    ]);
    expect(ranges.ranges).toEqual([{ fromSeq: 1, throughSeq: 3 }]);
    expect(ranges.lastSeq).toBe(3);
  });
});
