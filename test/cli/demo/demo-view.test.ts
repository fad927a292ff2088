import { expect, test } from 'vitest';

import { shownLagMs } from '../../../cli/demo/demo-view.ts';

test('the lag of the demo grows while saved values do not arrive', () => {
  const series = { saved: 11, stored: 10, newestTimeUs: 1_000_000, lagMs: 5 };
  const lagAt = (nowUs: number): number | null => shownLagMs(series, { nowUs, saveIntervalMs: 20 });
  expect([1_010_000, 2_000_000, 9_000_000].map(lagAt)).toEqual([5, 980, 7_980]);
  const arrived = { ...series, stored: 11 };
  expect(shownLagMs(arrived, { nowUs: 9_000_000, saveIntervalMs: 20 })).toBe(5);
});
