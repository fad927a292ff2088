import { describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import type { FrameRecord } from '../../../common/wire/frame.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../../host-collector/origin/collector-schema.ts';
import { Origin } from '../../../host-collector/origin/origin.ts';
import type { ProbeReading } from '../../../host-collector/probes/probe.ts';
import { DescriptorStore } from '../../../host-collector/vm/descriptor-store.ts';
import type { GuestListener } from '../../../host-collector/vm/guest-listener.ts';
import { VmSupervisor } from '../../../host-collector/vm/vm-supervisor.ts';
import { FrameTable } from '../../support/frame-table.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const vm = vmIdSchema.parse('vm1');
const running: ProbeReading = { kind: 'values', isSuspended: false, values: new Map() };

describe('VmSupervisor', () => {
  test('silence differs from death: the status stream says running, suspended, silent, dead, each at once', async () => {
    const database = openDatabase(':memory:');
    migrateCollector(database);
    const clock = new ManualClock();
    const table = new FrameTable(database);
    const origin = new Origin({
      database,
      appender: table,
      forwarder: { forward: () => {} },
      clock,
      log: silentLog,
    });
    let reading: ProbeReading = running;
    let guest: GuestListener | undefined;
    const supervisor = new VmSupervisor(
      {
        store: new DescriptorStore(database),
        origin,
        clock,
        log: silentLog,
        makeGuest: (_guest, listener) => {
          guest = listener;
          return {
            name: 'guest',
            counts: { accepted: 0, forwarded: 0, dropped: 0, failed: 0, lagMs: null },
            trouble: null,
            start: () => Promise.resolve(),
            stop: () => Promise.resolve(),
          };
        },
        makeProbe: () => ({ read: () => reading }),
      },
      { probeIntervalMinMs: 100 },
    );
    await origin.start();
    await supervisor.add({
      apiVersion: 'isobar/v1',
      kind: 'VirtualMachine',
      id: vm,
      guest: { channel: 'unix:/nowhere' },
      probe: { kind: 'process', pid: 1 },
      monitoring: { specifiers: [{ id: 'a', dataPoints: 'infra/**' }] },
    });
    const said = (): unknown[] =>
      table
        .records({ vm, kind: 'status' })
        .flatMap((record: FrameRecord) => (record.kind === 'status' ? [record.vmState] : []));
    const then = async (change: () => void): Promise<void> => {
      change();
      await clock.advance(101);
    };
    // A process that runs is no proof that the guest does.
    await then(() => {});
    await then(() => guest?.connected());
    await then(() => {
      reading = { ...running, isSuspended: true };
    });
    await then(() => {
      reading = running;
    });
    await then(() => guest?.disconnected());
    await then(() => {
      reading = { kind: 'vanished' };
    });
    expect(said()).toEqual(['unknown', 'running', 'suspended', 'running', 'silent', 'dead']);
    await supervisor.stop();
    await origin.stop();
    database.close();
  });
});
