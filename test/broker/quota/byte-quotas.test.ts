import { describe, expect, test } from 'vitest';

import { byteQuotaDefaults, NeighbourByteQuotas } from '../../../broker/quota/byte-quotas.ts';
import { FairShare, type ByteQuota } from '../../../broker/quota/fair-share.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const of = (bytesPerSecond: number, burstBytes: number): ByteQuota => ({
  bytesPerSecond,
  burstBytes,
});

function quotasOf(
  clock: ManualClock,
  names: readonly string[],
  { vm, neighbour, site }: { vm: ByteQuota; neighbour: ByteQuota; site: ByteQuota },
): NeighbourByteQuotas[] {
  const shared = new FairShare(site, clock.monotonicMs());
  return names.map(
    (name) =>
      new NeighbourByteQuotas({ clock, log: silentLog, site: shared }, name, { neighbour, vm }),
  );
}

/** How many of `count` frames of 100 bytes were taken. */
function taken(quotas: NeighbourByteQuotas | undefined, vm: string, count: number): number {
  let frames = 0;
  for (let index = 0; index < count; index += 1) if (quotas?.take(vm, 100) === true) frames += 1;
  return frames;
}

describe('byte quotas', () => {
  test('a VM gets its burst at once, then its rate', async () => {
    const clock = new ManualClock();
    const [quotas] = quotasOf(clock, ['a'], {
      vm: of(1_000, 10_000),
      neighbour: of(1e9, 1e9),
      site: of(1e9, 1e9),
    });
    expect(taken(quotas, 'vm1', 1_000)).toBe(100);
    for (let second = 0; second < 20; second += 1) {
      await clock.advance(1_000);
      expect(taken(quotas, 'vm1', 1_000)).toBe(10);
    }
    expect(taken(quotas, 'vm2', 1_000)).toBe(100);
  });

  test('VMs that flood leave room for the modest ones of the same neighbour', async () => {
    const clock = new ManualClock();
    const [quotas] = quotasOf(clock, ['a'], {
      vm: of(1_000, 10_000),
      neighbour: of(2_000, 20_000),
      site: of(1e9, 1e9),
    });
    for (let second = 0; second < 30; second += 1) {
      await clock.advance(1_000);
      for (const vm of ['flood1', 'flood2', 'flood3', 'flood4']) taken(quotas, vm, 200);
      expect(taken(quotas, 'modest', 3)).toBe(3);
    }
  });

  test('neighbours that flood leave room for the modest one', async () => {
    const clock = new ManualClock();
    const [one, two, modest] = quotasOf(clock, ['one', 'two', 'modest'], {
      vm: of(1_000, 10_000),
      neighbour: of(2_000, 20_000),
      site: of(2_500, 40_000),
    });
    for (let second = 0; second < 60; second += 1) {
      await clock.advance(1_000);
      for (let vm = 0; vm < 10; vm += 1) {
        taken(one, `vm${second}-${vm}`, 200);
        taken(two, `vm${second}-${vm}`, 200);
      }
      expect(taken(modest, 'vm1', 3)).toBe(3);
    }
  });

  test('a back-fill is granted what there is, and gives back what did not come', () => {
    const clock = new ManualClock();
    const [quotas] = quotasOf(clock, ['a'], {
      vm: of(1_000, 10_000),
      neighbour: of(1e9, 1e9),
      site: of(1e9, 1e9),
    });
    expect(quotas?.grant('vm1', 6_000)).toBe(6_000);
    expect(quotas?.grant('vm1', 6_000)).toBe(4_000);
    expect(quotas?.grant('vm1', 6_000)).toBe(0);
    quotas?.giveBack('vm1', 5_000);
    expect(quotas?.take('vm1', 5_001)).toBe(false);
    expect(quotas?.take('vm1', 5_000)).toBe(true);
  });

  test('no honest load meets the defaults: 20,000 measurements a second, and a back-fill at twenty times that', async () => {
    const clock = new ManualClock();
    const [quotas] = quotasOf(clock, ['a'], byteQuotaDefaults);
    const liveBytesPerTick = (20_000 * 12) / 10;
    let wantedBytes = 0;
    let grantedBytes = 0;
    for (let tick = 0; tick < 6_000; tick += 1) {
      await clock.advance(100);
      expect(quotas?.take('vm1', liveBytesPerTick)).toBe(true);
      wantedBytes += 20 * liveBytesPerTick;
      grantedBytes += quotas?.grant('vm1', 20 * liveBytesPerTick) ?? 0;
    }
    expect(grantedBytes).toBe(wantedBytes);
  });

  test('counts by neighbour and VM what was delayed, in bounded memory', () => {
    const clock = new ManualClock();
    const [quotas] = quotasOf(clock, ['a'], byteQuotaDefaults);
    quotas?.delayed('vm1', 70);
    quotas?.delayed('vm1', 30);
    expect(quotas?.countsOf('vm1')).toEqual({ delayedFrames: 2, delayedBytes: 100 });
    for (let vm = 0; vm < 20_000; vm += 1) quotas?.delayed(`invented-${vm}`, 1);
    expect(quotas?.counts).toEqual({ delayedFrames: 20_002, delayedBytes: 20_100 });
    expect(quotas?.countsOf('vm1').delayedFrames).toBe(0);
  });
});
