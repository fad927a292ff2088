import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import type { Reading } from '../../common/control/reader-answer.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { startGuest } from '../support/channel-fixture.ts';
import { eventually } from '../support/eventually.ts';
import { MemoryRowStore } from '../support/memory-row-store.ts';
import { StreamChain } from '../support/stream-chain.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/* A guest's channel, and host collector and reader as processes of their own. */

const timeout = { timeoutMs: 30_000 };

function descriptor(channel: string, monitoring: object): object {
  return {
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: 'vm1',
    guest: { channel },
    monitoring,
  };
}

const monitoringOf = (specifier: object): object => ({
  latenessMaxMs: 600_000,
  specifiers: [{ id: 'gauge', dataPoints: 'kpi/gauge/value', ...specifier }],
});

describe('holdMs and specifiers that change, from guest to reader', () => {
  test('holdMs may repeat a gauge’s last value, marked as held; specifiers change at run time by compare-and-set on a revision, from the next boundary on', async () => {
    using directory = temporaryDirectory();
    const channel = `unix:${join(directory.path, 'guest.sock')}`;
    const store = new MemoryRowStore();
    const guest = await startGuest(store, { address: channel });
    await using chain = new StreamChain(directory.path);
    const before = { monitoringIntervalMs: 100, deliveryIntervalMs: 1_000, holdMs: 380 };
    await chain.start(descriptor(channel, monitoringOf(before)));

    // In the guest's future, so that the host's time, which moves on, sets no boundary.
    const baseMs = Math.ceil(Date.now() / 10_000) * 10_000 + 60_000;
    let rowCount = 0;
    const save = async (atMs: number, value: number): Promise<void> => {
      rowCount += 1;
      store.publish(
        [{ table: 'gauge', columns: ['value'], values: [value] }],
        'unencrypted',
        (baseMs + atMs) * 1_000,
      );
      // Taken in: a change from here on finds it.
      await eventually(() => store.acknowledged.unencrypted === rowCount, timeout);
    };
    const readings = async (): Promise<readonly string[]> =>
      (await chain.readings()).map((reading) => brief(reading, baseMs));
    const complete = (atMs: number): void => {
      store.watermarkTimeUs = (baseMs + atMs) * 1_000;
    };

    await save(50, 7);
    complete(2_050);
    await eventually(async () => (await readings()).length === 4, timeout);
    await save(2_350, 9);
    await chain.crash('collector');
    const after = { deliveryIntervalMs: 500, format: 'max', holdMs: 500 };
    await eventually(
      () => isThere(() => chain.setMonitoring('vm1', 1, monitoringOf(after))),
      timeout,
    );
    await expect(chain.setMonitoring('vm1', 1, monitoringOf(before))).rejects.toMatchObject({
      message: expect.stringContaining('revision 2, not 1') as unknown,
    });
    await chain.crash('collector');
    await save(2_700, 4);
    complete(4_050);
    await eventually(async () => (await readings()).at(-1)?.startsWith('3500'), timeout);
    // Late, it belongs to the form of its time.
    await save(550, 8);
    complete(4_060);
    await eventually(async () => (await readings()).some((item) => item.includes(' r1 ')), timeout);

    expect(new Set(await readings())).toEqual(
      new Set([
        // A revision states its window again.
        '0-1000 r1 50: 7',
        '0-1000 r1 200: held 7',
        '0-1000 r1 300: held 7',
        '0-1000 r1 400: held 7',
        '0-1000 r1 550: 8',
        '0-1000 r1 700: held 8',
        '0-1000 r1 800: held 8',
        '0-1000 r1 900: held 8',
        // The old form's last window ends at the boundary.
        '2000-2500 r0 2350: 9',
        '2500-3000 r0 max 4 of 1',
        // Held once, then 800 ms old: no more.
        '3000-3500 r0 max 4 of 1',
        '3500-4000 r0 max null of 0',
      ]),
    );
    expect(await readings()).toHaveLength(12);
    await guest.stop();
  });
});

function brief(reading: Reading, baseMs: number): string {
  const { window, revision, timeUs, value, held, format, count } = reading;
  const name = `${(window?.startMs ?? NaN) - baseMs}-${(window?.endMs ?? NaN) - baseMs} r${revision}`;
  if (format !== 'raw') return `${name} ${format} ${JSON.stringify(value)} of ${count}`;
  // The guest's clock offset is known to some milliseconds.
  const atMs = Math.round((timeUs / 1_000 - baseMs) / 50) * 50;
  return `${name} ${atMs}: ${held ? 'held ' : ''}${JSON.stringify(value)}`;
}

/** Whether the collector answered; it may still be starting. */
async function isThere(request: () => Promise<unknown>): Promise<boolean> {
  try {
    await request();
    return true;
  } catch (error) {
    if (error instanceof Error && error.message.includes('not running')) return false;
    throw error;
  }
}

/** A guest's clock: the machine's, set apart by whoever sets it. */
class SettableClock extends SystemClock {
  aheadUs = 0;

  override wallUs(): number {
    return super.wallUs() + this.aheadUs;
  }
}

describe('the guest’s clock, from guest to reader', () => {
  test('a measurement’s time is the guest’s saved_at_us corrected by the clock offset in force at that time, its uncertainty recorded: through steps and reboots', async () => {
    using directory = temporaryDirectory();
    const channel = `unix:${join(directory.path, 'guest.sock')}`;
    const store = new MemoryRowStore();
    const clock = new SettableClock();
    const host = new SystemClock();
    let guest = await startGuest(store, { address: channel }, { clock });
    await using chain = new StreamChain(directory.path);
    await chain.start(descriptor(channel, { specifiers: [{ id: 'all', dataPoints: 'kpi/**' }] }));
    const trueUs: number[] = [];
    const save = async (): Promise<void> => {
      trueUs.push(host.wallUs());
      const row = { table: 'n', columns: ['value'], values: [trueUs.length] };
      store.publish([row], 'unencrypted', clock.wallUs());
      const isHere = async (): Promise<boolean> =>
        (await chain.readings()).length === trueUs.length;
      await eventually(isHere, timeout);
    };
    await save();
    const isKnown = async (): Promise<boolean> => {
      await save();
      return ((await chain.readings()).at(-1)?.uncertaintyUs ?? Infinity) < 100_000;
    };
    // Set forward; the first row is saved before the host, or the guest's own watch, can have noticed.
    clock.aheadUs = 3_600_000_000;
    await save();
    await eventually(isKnown, timeout);
    // Set back, to times that both settings of the clock may have had: the uncertainty covers both.
    clock.aheadUs = -7_200_000_000;
    await save();
    await save();
    await guest.stop();
    clock.aheadUs = 10_000_000_000;
    guest = await startGuest(store, { address: channel }, { clock, bootId: 'boot-2' });
    await save();
    await eventually(isKnown, timeout);
    await chain.crash('collector');
    await save();
    const readings = await chain.readings();
    const beyondUs = readings.map(
      ({ timeUs, uncertaintyUs }, index) =>
        Math.abs(timeUs - (trueUs[index] ?? NaN)) - (uncertaintyUs ?? NaN),
    );
    // Both clocks are read by this test, one after the other.
    expect(Math.max(...beyondUs)).toBeLessThan(5_000);
    await guest.stop();
  });
});
