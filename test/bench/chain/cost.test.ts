import { describe, expect, test } from 'vitest';

import { catchUpOf } from '../../../bench/chain/backlog.ts';
import { costBetween, cpuUsInAll, relayMean, type Snapshot } from '../../../bench/chain/cost.ts';

function snapshot(atMs: number, measurements: number, frames: number, cpuUs: number): Snapshot {
  const usage = { cpuUs, residentBytes: cpuUs * 10 };
  const nodes = ['source', 'relay-1', 'relay-2', 'primary'];
  return {
    atMs,
    measurements,
    frames,
    usage: new Map(
      nodes.map((node, index) => [node, { ...usage, cpuUs: usage.cpuUs * (index + 1) }]),
    ),
  };
}

describe('the cost of a measurement', () => {
  test('is the CPU time of each node between two moments over what was stored between them', () => {
    const cost = costBetween(snapshot(1_000, 500, 5, 100), snapshot(3_000, 2_500, 25, 1_100));
    expect(cost.measurementsPerSecond).toBe(1_000);
    expect(cost.measurementsPerFrame).toBe(100);
    expect([...cost.cpuUs.values()]).toEqual([0.5, 1, 1.5, 2]);
    expect(cpuUsInAll(cost)).toBe(5);
    expect(relayMean(cost.cpuUs)).toBe(1.25);
  });

  test('a chain without relays has no mean of them', () => {
    expect(relayMean(new Map([['source', 1]]))).toBeNaN();
  });
});

describe('the catch-up of an outage', () => {
  test('fresh values are those sent between the first arrival and the end of the backlog', () => {
    const values = [
      { sentAtMs: 10, cameAtMs: 12 },
      { sentAtMs: 20, cameAtMs: 110 },
      { sentAtMs: 115, cameAtMs: 118 },
      { sentAtMs: 30, cameAtMs: 140 },
      { sentAtMs: 150, cameAtMs: 151 },
    ];
    expect(catchUpOf(values, { answeredMs: 100, caughtUpMs: 140 })).toEqual({
      durationMs: 40,
      backlogCount: 2,
      freshDelaysMs: [3],
    });
  });
});
