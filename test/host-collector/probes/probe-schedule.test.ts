import { describe, expect, test } from 'vitest';

import type { Measurement } from '../../../common/wire/delivery.ts';
import { monitoringSpecifierSchema } from '../../../common/wire/monitoring-specifier.ts';
import { ProbeSchedule, probeIntervalMs } from '../../../host-collector/probes/probe-schedule.ts';
import { infraDataPoints, type ProbeReading } from '../../../host-collector/probes/probe.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const probeIntervalMinMs = 100;

function intervalFor(...wanted: readonly [dataPoints: string, monitoringIntervalMs: number][]) {
  const specifiers = wanted.map(([dataPoints, monitoringIntervalMs], index) =>
    monitoringSpecifierSchema.parse({ id: `s${index}`, dataPoints, monitoringIntervalMs }),
  );
  return probeIntervalMs(specifiers, probeIntervalMinMs);
}

describe('ProbeSchedule', () => {
  test('monitoring interval 0: infrastructure as often as the probe allows, bounded', () => {
    expect(intervalFor(['infra/**', 0])).toBe(probeIntervalMinMs);
    expect(intervalFor(['**', 7])).toBe(probeIntervalMinMs);
    expect(intervalFor(['infra/cpu/*', 2_000], ['infra/memory/*', 500], ['kpi/**', 0])).toBe(500);
    expect(intervalFor(['kpi/**', 0], ['encrypted/**', 0])).toBeNull();
  });

  test('reads at its interval, at once when it begins, not at all while nothing wants it, nor after the VM has gone', async () => {
    const clock = new ManualClock();
    let reading: ProbeReading = {
      kind: 'values',
      isSuspended: false,
      values: new Map([[infraDataPoints.cpuTimeUs, 5]]),
    };
    const taken: (readonly Measurement[])[] = [];
    const schedule = new ProbeSchedule({ clock }, { read: () => reading }, (measurements) => {
      taken.push(measurements);
    });
    await clock.advance(1_000);
    expect(taken).toEqual([]);
    schedule.setInterval(100);
    expect(taken).toMatchObject([
      [{ dataPoint: 'infra/cpu/time_us', timeUs: clock.wallUs(), value: 5, held: false }],
    ]);
    await clock.advance(250);
    expect(taken).toHaveLength(3);
    schedule.setInterval(null);
    await clock.advance(1_000);
    expect(taken).toHaveLength(3);
    schedule.setInterval(50);
    reading = { kind: 'vanished' };
    await clock.advance(1_000);
    expect(taken.slice(4)).toEqual([[]]);
  });
});
