import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { ControlClient } from '../common/control/control-client.ts';
import { vmDescriptorSchema } from '../common/wire/vm-descriptor.ts';
import { eventually } from '../test/support/eventually.ts';
import type { Benchmark, BenchmarkContext } from './benchmark.ts';
import { startFleet } from './fleet.ts';
import { findDescendant, usageOf } from './machine.ts';
import { monotonicMs, type RunningInstance, startInstance } from './running-instance.ts';

const guestCounts = [1, 10, 100, 1_000];
/** Saves of each guest; the load grows with the number of guests alone. */
const savesPerSecond = 1;
const arrivalTimeoutMs = 120_000;

interface GrowthSample {
  readonly guestCount: number;
  readonly savedCount: number;
  readonly deliveredCount: number;
  readonly deliveriesPerSecond: number;
  /** Of the host collector: CPU time a VM and second, and memory a VM beyond what it takes with none. */
  readonly collectorCpuMicrosecondsPerVm: number;
  readonly collectorBytesPerVm: number;
  readonly collectorBytes: number;
}

/** One collector with 1 to 1,000 guests that each have a store and a channel, but no mount. */
export const growth: Benchmark = {
  name: 'growth',
  title: 'One collector, 1 to 1,000 guests',
  run: async (context) => {
    const samples: GrowthSample[] = [];
    const counts = context.isShort ? guestCounts.slice(0, 3) : guestCounts;
    for (const guestCount of counts) samples.push(await measure(guestCount, context));
    return {
      tables: [
        {
          title: `Each guest saves ${savesPerSecond} a second; CPU and memory of the collector`,
          columns: [
            'VMs',
            'deliveries /s',
            'lost',
            'CPU µs a VM and second',
            'KiB a VM',
            'MiB in all',
          ],
          rows: samples.map((sample) => [
            sample.guestCount,
            Math.round(sample.deliveriesPerSecond),
            sample.savedCount - sample.deliveredCount,
            Math.round(sample.collectorCpuMicrosecondsPerVm),
            Math.round(sample.collectorBytesPerVm / 1_024),
            Math.round(sample.collectorBytes / 2 ** 20),
          ]),
        },
      ],
      goals: samples.map((sample) => ({
        what: `deliveries lost, ${sample.guestCount} VMs`,
        limit: 0,
        bound: 'most',
        reached: sample.savedCount - sample.deliveredCount,
      })),
      remarks: [],
      details: samples,
    };
  },
};

async function measure(guestCount: number, context: BenchmarkContext): Promise<GrowthSample> {
  // Paths of unix sockets are short (108 bytes), so not below the benchmark's own directory.
  const fleetPath = mkdtempSync(join(tmpdir(), 'isobar-fleet-'));
  await using instance = await startInstance(mkdtempSync(join(context.diskPath, 'growth-')));
  const collector = findDescendant(instance.pid, 'host-collector/main');
  if (collector === undefined) throw new Error('isobar up runs no host-collector');
  const emptyBytes = usageOf(collector).residentBytes;
  const fleet = await startFleet(fleetPath, { guestCount, savesPerSecond });
  try {
    let deliveredCount = 0;
    let lastAtMs = monotonicMs();
    await using _watch = instance.watch('kpi/growth/sequence', (reading) => {
      deliveredCount += 1;
      lastAtMs = reading.receivedAtMs;
    });
    await registerGuests(instance, fleetPath, guestCount);
    const startMs = monotonicMs();
    const before = usageOf(collector);
    const durationMs = context.isShort ? 5_000 : 30_000;
    context.progress(`${guestCount} guests for ${durationMs / 1_000} s`);
    fleet.tell('save');
    await delay(durationMs);
    const after = usageOf(collector);
    const elapsedSeconds = (monotonicMs() - startMs) / 1_000;
    fleet.tell('stop');
    const savedCount = await fleet.savedCount();
    await eventually(() => deliveredCount >= savedCount || stalled(lastAtMs), {
      timeoutMs: arrivalTimeoutMs,
      pollMs: 100,
    });
    return {
      guestCount,
      savedCount,
      deliveredCount,
      deliveriesPerSecond: (deliveredCount * 1_000) / (lastAtMs - startMs),
      collectorCpuMicrosecondsPerVm: (after.cpuUs - before.cpuUs) / guestCount / elapsedSeconds,
      collectorBytesPerVm: (after.residentBytes - emptyBytes) / guestCount,
      collectorBytes: after.residentBytes,
    };
  } finally {
    await fleet.stop();
    await rm(fleetPath, { recursive: true, force: true });
  }
}

const stallMaxMs = 10_000;

function stalled(lastAtMs: number): boolean {
  return monotonicMs() - lastAtMs > stallMaxMs;
}

async function registerGuests(
  instance: RunningInstance,
  fleetPath: string,
  guestCount: number,
): Promise<void> {
  const collector = new ControlClient({
    socketPath: instance.collectorSocketPath,
    peer: 'the host collector',
    startCommand: 'isobar up',
  });
  for (let guest = 0; guest < guestCount; guest += 1) {
    const descriptor = vmDescriptorSchema.parse({
      apiVersion: 'isobar/v1',
      kind: 'VirtualMachine',
      id: `growth-${guest}`,
      guest: { channel: `unix:${join(fleetPath, `${guest}.sock`)}` },
      monitoring: { specifiers: [{ id: 'kpi', dataPoints: 'kpi/**' }] },
    });
    await collector.call('POST', '/v1/vms', descriptor, vmDescriptorSchema);
  }
}
