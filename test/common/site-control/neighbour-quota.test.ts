import { describe, expect, test } from 'vitest';

import { NeighbourQuota } from '../../../common/site-control/neighbour-quota.ts';
import { siteControlServerDefault } from '../../../common/site-control/site-control-server.ts';

const hourMs = 3_600_000;

describe('NeighbourQuota', () => {
  test('a flood of a day makes no more entries than an hourly budget, and none of the refused is forgotten', () => {
    const quota = new NeighbourQuota(siteControlServerDefault, 0);
    const { requestsPerHourMax } = siteControlServerDefault;
    let [answeredCount, refusedCount, toldCount, noteCount] = [0, 0, 0, 0];
    for (let nowMs = 0; nowMs <= 24 * hourMs; nowMs += 100) {
      if (quota.take(nowMs)) answeredCount += 1;
      else {
        refusedCount += 1;
        quota.countRefusal();
      }
      const told = quota.takeNote(nowMs);
      toldCount += told;
      if (told > 0) noteCount += 1;
    }
    expect(answeredCount).toBeGreaterThanOrEqual(24 * requestsPerHourMax);
    expect(answeredCount).toBeLessThanOrEqual(25 * requestsPerHourMax);
    expect(noteCount).toBeLessThanOrEqual(24);
    expect(toldCount + quota.takeNote(26 * hourMs)).toBe(refusedCount);
    expect(refusedCount).toBeGreaterThan(100_000);
  });
});
