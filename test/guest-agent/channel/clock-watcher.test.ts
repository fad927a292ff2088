import { describe, expect, test } from 'vitest';

import type { ClockStep } from '../../../common/channel/message.ts';
import { SystemBootClock } from '../../../guest-agent/channel/boot-clock.ts';
import { ClockWatcher } from '../../../guest-agent/channel/clock-watcher.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function startWatcher() {
  const clock = new ManualClock();
  const steps: ClockStep[] = [];
  let sleptUs = 0;
  const bootClock = {
    bootId: 'boot-1',
    bootTimeUs: () => 77_000_000 + clock.monotonicMs() * 1_000 + sleptUs,
  };
  const watcher = new ClockWatcher({ clock, bootClock }, (step) => {
    steps.push(step);
  });
  watcher.start();
  return {
    clock,
    steps,
    watcher,
    sleep: (durationUs: number) => {
      sleptUs += durationUs;
      clock.stepWall(durationUs);
    },
  };
}

describe('ClockWatcher', () => {
  test.each([3_600_000_000, -3_600_000_000, 6_000])(
    'detects a step of the wall clock against the monotonic clock: %d us',
    async (deltaUs) => {
      const { clock, steps } = startWatcher();
      await clock.advance(10_000);
      expect(steps).toEqual([]);
      const beforeUs = clock.wallUs();
      clock.stepWall(deltaUs);
      await clock.advance(500);
      expect(steps).toEqual([
        {
          kind: 'clock-step',
          cause: 'stepped',
          bootId: 'boot-1',
          bootTimeUs: 87_500_000,
          wallBeforeUs: beforeUs + 500_000,
          wallAfterUs: beforeUs + deltaUs + 500_000,
          noticedWithinUs: 500_000,
        },
      ]);
      await clock.advance(10_000);
      expect(steps).toHaveLength(1);
    },
  );

  test('says nothing of slewing', async () => {
    const { clock, steps } = startWatcher();
    for (let second = 0; second < 60; second += 1) {
      clock.stepWall(500);
      await clock.advance(1_000);
    }
    expect(steps).toEqual([]);
  });

  test('tells sleep, in which the boot time goes on, from a step', async () => {
    const { clock, steps, sleep } = startWatcher();
    sleep(60_000_000);
    await clock.advance(500);
    expect(steps).toMatchObject([{ cause: 'resumed', noticedWithinUs: 60_500_000 }]);
  });

  test('is asked before the clock is read for something that matters', async () => {
    const { clock, steps, watcher } = startWatcher();
    clock.stepWall(-1_000_000);
    watcher.check();
    expect(steps).toMatchObject([{ cause: 'stepped', noticedWithinUs: 0 }]);
    watcher.stop();
    clock.stepWall(-1_000_000);
    await clock.advance(1_000);
    expect(steps).toHaveLength(1);
  });
});

describe('SystemBootClock', () => {
  test('reads the boot from /proc', () => {
    const bootClock = new SystemBootClock();
    expect(bootClock.bootId).toMatch(/^[0-9a-f-]{36}$/);
    expect(bootClock.bootTimeUs()).toBeGreaterThan(0);
  });
});
