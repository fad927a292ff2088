import { describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { kpiDataPoint } from '../../../common/wire/data-point.ts';
import type { EncodedFrame, FrameRecord } from '../../../common/wire/frame.ts';
import { vmDescriptorSchema, type VmDescriptor } from '../../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../../host-collector/origin/collector-schema.ts';
import { Origin } from '../../../host-collector/origin/origin.ts';
import type { GuestListener, GuestRowBatch } from '../../../host-collector/vm/guest-listener.ts';
import { eventually } from '../../support/eventually.ts';
import { FrameTable } from '../../support/frame-table.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const descriptor = vmDescriptorSchema.parse({
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  monitoring: { specifiers: [{ id: 'all', dataPoints: 'kpi/**' }] },
});

interface Fixture {
  readonly origin: Origin;
  readonly clock: ManualClock;
  readonly database: Database;
  readonly guest: GuestListener;
  readonly forwarded: EncodedFrame[];
  readonly records: (kind: 'data' | 'status') => FrameRecord[];
}

async function start(
  database = openDatabase(':memory:'),
  vm: VmDescriptor = descriptor,
): Promise<Fixture> {
  migrateCollector(database);
  const clock = new ManualClock();
  const table = new FrameTable(database);
  const forwarded: EncodedFrame[] = [];
  const origin = new Origin({
    database,
    appender: table,
    forwarder: { forward: (frames) => void forwarded.push(...frames) },
    clock,
    log: silentLog,
  });
  await origin.start();
  origin.add(vm);
  const guest = origin.guestListener(descriptor.id);
  if (guest === undefined) throw new Error('the VM was added');
  const records = (kind: 'data' | 'status'): FrameRecord[] =>
    table.records({ vm: descriptor.id, kind });
  return { origin, clock, database, guest, forwarded, records };
}

function batch(generation: string, fromRowId: number, count: number): GuestRowBatch {
  const rows = Array.from({ length: count }, (_, index) => ({
    area: 'unencrypted' as const,
    table: 'users',
    rowId: fromRowId + index,
    savedAtUs: 1_700_000_000_000_000 + fromRowId + index,
    columns: ['n'],
    values: [fromRowId + index],
  }));
  return { area: 'unencrypted', generation, rows, lost: [], throughRowId: fromRowId + count - 1 };
}

function values(records: readonly FrameRecord[]): unknown[] {
  return records.flatMap((record) =>
    record.kind === 'delivery' && record.delivery.kind === 'raw'
      ? record.delivery.measurements.map(({ value }) => value)
      : [],
  );
}

describe('Origin', () => {
  test('commits before it forwards, and forwards before it acknowledges', async () => {
    const { guest, forwarded, records, origin } = await start();
    const before = forwarded.length;
    const taken = guest.rows(batch('g', 1, 1)).then(() => ({
      committed: values(records('data')),
      forwardedCount: forwarded.length - before,
      cursor: guest.cursor('unencrypted'),
    }));
    expect(values(records('data'))).toEqual([]);
    expect(await taken).toMatchObject({ committed: [1], cursor: { generation: 'g', rowId: 1 } });
    expect((await taken).forwardedCount).toBeGreaterThan(0);
    await origin.stop();
  });

  test('rows that come again are delivered once', async () => {
    const { guest, records, origin } = await start();
    await guest.rows(batch('g', 1, 3));
    await guest.rows(batch('g', 2, 3));
    expect(values(records('data'))).toEqual([1, 2, 3, 4]);
    await origin.stop();
  });

  test('everything that arrived during the last commit goes into the next', async () => {
    const { guest, forwarded, origin } = await start();
    await guest.rows(batch('g', 1, 1));
    const before = forwarded.length;
    await Promise.all([guest.rows(batch('g', 2, 1)), guest.rows(batch('g', 3, 1))]);
    expect(forwarded.length - before).toBe(1);
    await origin.stop();
  });

  test('a guest database that is lost, rolled back or cloned opens a new generation and epoch', async () => {
    const { guest, records, origin } = await start();
    guest.generation('unencrypted', 'a');
    guest.generation('encrypted', 'x');
    await guest.rows(batch('a', 1, 2));
    guest.generation('unencrypted', 'b');
    guest.generation('encrypted', 'y');
    await guest.rows(batch('b', 1, 1));
    const data = records('data');
    expect(data.map(({ kind }) => kind)).toEqual([
      'epoch-opened',
      'delivery',
      'delivery',
      'epoch-closed',
      'epoch-opened',
      'delivery',
    ]);
    expect(data[4]).toMatchObject({ reason: 'generation-changed', predecessor: { lastSeq: 3 } });
    expect(guest.cursor('unencrypted')).toEqual({ generation: 'b', rowId: 1 });
    await origin.stop();
  });

  test('after a failed commit nothing is durable, and the rows come again', async () => {
    const { guest, database, records, origin } = await start();
    await guest.rows(batch('g', 1, 1));
    database.exec(
      `CREATE TRIGGER full BEFORE INSERT ON frame_table BEGIN SELECT RAISE(ABORT, 'disk full'); END`,
    );
    await expect(guest.rows(batch('g', 2, 1))).rejects.toMatchObject({
      code: 'commit-failed',
      retryable: true,
    });
    expect(guest.cursor('unencrypted')).toEqual({ generation: 'g', rowId: 1 });
    database.exec('DROP TRIGGER full');
    await guest.rows(batch('g', 2, 1));
    expect(values(records('data'))).toEqual([1, 2]);
    await origin.stop();
  });

  test('events of one VM beyond the bound of what waits for a commit are refused and counted, never silence; a change of the specifiers gets in', async () => {
    const { guest, origin, records } = await start();
    await guest.rows(batch('g', 1, 1));
    const sample = {
      dataPoint: kpiDataPoint('users', 'n'),
      timeUs: 1_700_000_000_000_000,
      uncertaintyUs: 0,
      value: 1,
      held: false,
    };
    const changed = vmDescriptorSchema.parse({
      ...descriptor,
      revision: 7,
      monitoring: { specifiers: [{ id: 'all', dataPoints: 'kpi/**', format: 'max' }] },
    });
    for (let count = 0; count < 10_002; count += 1) origin.measured(descriptor.id, [sample]);
    await expect(guest.rows(batch('g', 2, 3))).rejects.toMatchObject({
      code: 'inbox-full',
      retryable: true,
    });
    origin.update(changed);
    await eventually(() => origin.counts(descriptor.id)?.inputs.forwarded === 10_001, {
      timeoutMs: 5_000,
    });
    expect(origin.counts(descriptor.id)?.inputs).toMatchObject({
      accepted: 10_006,
      forwarded: 10_001,
      dropped: 2,
      failed: 3,
    });
    await guest.rows(batch('g', 1_000_000, 3));
    expect(records('data').at(-1)).toMatchObject({
      delivery: { format: 'max', descriptorRevision: 7 },
    });
    expect(guest.cursor('unencrypted')).toEqual({ generation: 'g', rowId: 1_000_002 });
    await origin.stop();
  });

  test('a watermark that closes no window costs no commit, and the next status says it', async () => {
    const { guest, records, forwarded, origin, clock } = await start();
    await guest.rows(batch('g', 1, 1));
    const before = forwarded.length;
    for (let second = 0; second < 4; second += 1) {
      guest.watermark(1_700_000_000_000_000 + second * 1_000_000);
      await clock.advance(1_000);
    }
    expect(forwarded.length).toBe(before);
    await clock.advance(1_000);
    expect(records('status').at(-1)).toMatchObject({ watermarkUs: 1_700_000_003_000_000 });
    await origin.stop();
  });

  test('rows that the guest gave up are a lost record, never silence', async () => {
    const { guest, records, origin } = await start();
    const lost = [{ fromRowId: 0, throughRowId: 4, count: 4, reason: 'pruned' }];
    await guest.rows({ ...batch('g', 5, 1), lost });
    expect(records('data').filter(({ kind }) => kind === 'lost')).toMatchObject([
      { count: 4, reason: 'pruned' },
    ]);
    await origin.stop();
  });

  test('the status stream speaks at least every statusIntervalMs, with state, head and watermark', async () => {
    const { guest, clock, records, origin } = await start();
    guest.connected();
    await guest.rows(batch('g', 1, 1));
    guest.watermark(1_700_000_000_000_000);
    await clock.advance(20_000);
    const statuses = records('status').filter(({ kind }) => kind === 'status');
    expect(statuses.length).toBeGreaterThanOrEqual(4);
    expect(statuses.at(-1)).toMatchObject({
      vmState: 'running',
      head: { epoch: { number: 1 }, seq: 2 },
      watermarkUs: 1_700_000_000_000_000,
    });
    guest.disconnected();
    await clock.advance(1);
    expect(records('status').at(-1)).toMatchObject({ vmState: 'silent' });
    await origin.stop();
  });

  test('goes on in the same epoch after a restart; without its state a new epoch says store-lost', async () => {
    const first = await start();
    await first.guest.rows(batch('g', 1, 1));
    await first.origin.stop();
    const second = await start(first.database);
    await second.guest.rows(batch('g', 1, 2));
    expect(values(second.records('data'))).toEqual([1, 2]);
    await second.origin.stop();
    first.database.exec('DELETE FROM collector_vm; DELETE FROM collector_journal');
    const third = await start(first.database);
    const opened = third.records('data').filter(({ kind }) => kind === 'epoch-opened');
    expect(opened).toMatchObject([{ reason: 'created' }, { reason: 'store-lost' }]);
    await third.origin.stop();
  });

  test('the state of a predicate is durable: a restart enters nothing again', async () => {
    const predicate = { condition: 'above', threshold: 2, kind: 'edge' };
    const judged = vmDescriptorSchema.parse({
      ...descriptor,
      monitoring: { specifiers: [{ id: 'edge', dataPoints: 'kpi/**', predicate }] },
    });
    const first = await start(openDatabase(':memory:'), judged);
    await first.guest.rows(batch('g', 1, 4));
    expect(values(first.records('data'))).toEqual([1, 3]);
    // Without a stop, as after kill -9: nothing is folded.
    const second = await start(first.database, judged);
    await second.guest.rows(batch('g', 5, 2));
    expect(values(second.records('data'))).toEqual([1, 3]);
    await second.origin.stop();
    await first.origin.stop();
  });

  test('the status stream has the data points that the descriptor allows intermediaries to see, and no other', async () => {
    const { guest, origin, records } = await start(
      undefined,
      vmDescriptorSchema.parse({
        ...descriptor,
        monitoring: {
          specifiers: [{ id: 'all', dataPoints: 'kpi/**' }],
          visibleToIntermediaries: ['kpi/users/n'],
        },
      }),
    );
    const [row] = batch('g', 1, 1).rows;
    if (row === undefined) throw new Error('the batch has a row');
    const rows = [
      { ...row, columns: ['n', 'secret'], values: [1, 'hidden'] },
      { ...row, rowId: 2, table: 'other', values: [2] },
    ];
    await guest.rows({ ...batch('g', 1, 2), rows });
    expect(values(records('data'))).toEqual([1, 'hidden', 2]);
    expect(values(records('status'))).toEqual([1]);
    await origin.stop();
  });

  const windowed = vmDescriptorSchema.parse({
    ...descriptor,
    monitoring: {
      specifiers: [
        { id: 'median', dataPoints: 'kpi/**', format: 'median', deliveryIntervalMs: 10_000 },
      ],
    },
  });

  test.each([
    ['damaged', "UPDATE collector_vm SET snapshot = substr(snapshot, 1, 400) || '!'", 0],
    [
      'of another version',
      `UPDATE collector_vm SET snapshot = replace(snapshot, '"version":1', '"version":0')`,
      3,
    ],
    [
      'with a specifier that newer rules refuse',
      "UPDATE collector_vm SET snapshot = replace(snapshot, 'kpi/**', 'kpis/**')",
      3,
    ],
  ])(
    'an engine state that is %s begins anew in a new epoch, and what waited in it is counted as lost, as far as can be told',
    async (_kind, damage, lostCount) => {
      const first = await start(openDatabase(':memory:'), windowed);
      await first.guest.rows(batch('g', 1, 3));
      await first.origin.stop();
      first.database.exec(damage);
      const second = await start(first.database, windowed);
      const records = second.records('data');
      expect(records.filter(({ kind }) => kind === 'epoch-opened')).toMatchObject([
        { reason: 'created' },
        { reason: 'store-lost' },
      ]);
      const lost = records.filter(({ kind }) => kind === 'lost');
      expect(lost).toMatchObject(
        lostCount === 0 ? [] : [{ count: lostCount, where: 'guest-store' }],
      );
      expect(second.origin.counts(descriptor.id)?.deliveries.dropped).toBe(lostCount);
      await second.guest.rows(batch('g', 4, 1));
      await second.origin.stop();
      const third = await start(first.database, windowed);
      expect(third.records('data').filter(({ kind }) => kind === 'epoch-opened')).toHaveLength(2);
      await third.origin.stop();
    },
  );

  test('a state with a median beyond 64 bits, as earlier programs wrote it, goes on', async () => {
    const huge = (2n ** 1_000n).toString();
    const predicate = { condition: 'changed-by', delta: 1 };
    const [specifier] = windowed.monitoring.specifiers;
    const judged = vmDescriptorSchema.parse({
      ...windowed,
      monitoring: { specifiers: [{ ...specifier, predicate, deliveryIntervalMs: 1 }] },
    });
    const first = await start(openDatabase(':memory:'), judged);
    await first.guest.rows(batch('g', 1, 3));
    first.guest.watermark(1_700_000_010_000_000);
    await first.clock.advance(1);
    await first.origin.stop();
    const { changes } = first.database
      .prepare(`UPDATE collector_vm SET snapshot = replace(snapshot, '"reference":2', ?)`)
      .run(`"reference":{"integer":"${huge}"}`);
    expect(changes).toBe(1);
    expect(first.database.prepare('SELECT snapshot FROM collector_vm').pluck().get()).toContain(
      huge,
    );
    const second = await start(first.database, judged);
    expect(second.records('data').filter(({ kind }) => kind === 'epoch-opened')).toHaveLength(1);
    await second.origin.stop();
    const snapshot = first.database.prepare('SELECT snapshot FROM collector_vm').pluck().get();
    expect(snapshot).toContain(`"reference":${2 ** 1_000}`);
  });
});
