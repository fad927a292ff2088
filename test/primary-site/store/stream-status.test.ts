import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { encodeFrame } from '../../../common/wire/frame-codec.ts';
import type {
  EncodedFrame,
  Epoch,
  FrameRecord,
  StreamKind,
  VmState,
} from '../../../common/wire/frame.ts';
import { PrimaryStore } from '../../../primary-site/store/primary-store.ts';
import { StoreRetention } from '../../../primary-site/store/store-retention.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { dataStream, rowRecord, sampleEpoch, sampleStartUs } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const { vm } = dataStream('vm1');
const hourUs = 3_600_000_000;
const nextEpoch: Epoch = { number: 2, nonce: '00112233445566aa' };
let clock: ManualClock;
let store: PrimaryStore;
let removeDirectory: () => void;

beforeEach(async () => {
  const directory = temporaryDirectory();
  removeDirectory = () => {
    directory[Symbol.dispose]();
  };
  clock = new ManualClock(sampleStartUs);
  const options = { path: join(directory.path, 'store.db'), seriesMax: 1_000 };
  store = new PrimaryStore({ clock, log: silentLog }, options);
  await store.start();
});

afterEach(async () => {
  await store.stop();
  removeDirectory();
});

function frame(
  kind: StreamKind,
  epoch: Epoch,
  seq: number,
  ...records: readonly FrameRecord[]
): EncodedFrame {
  const header = {
    stream: { vm, kind },
    epoch,
    seq,
    previousHash: new Uint8Array(32),
    producedAtUs: clock.wallUs(),
  };
  return { header, bytes: encodeFrame({ header, records }) };
}

const opened: FrameRecord = {
  kind: 'epoch-opened',
  predecessor: null,
  generation: null,
  reason: 'created',
};

function status(
  seq: number,
  headSeq: number,
  epoch: Epoch = sampleEpoch,
  vmState: VmState = 'running',
): EncodedFrame {
  return frame('status', sampleEpoch, seq, {
    kind: 'status',
    vmState,
    head: { epoch, seq: headSeq },
    watermarkUs: sampleStartUs - 5,
  });
}

function windowRecord(startMs: number): FrameRecord {
  return {
    kind: 'delivery',
    delivery: {
      kind: 'raw',
      specifierId: 'each second',
      descriptorRevision: 1,
      window: { startMs, endMs: startMs + 1_000 },
      revision: 0,
      predicateState: null,
      measurements: [],
    },
  };
}

function rowCount(table: string): number {
  return Number(store.database.prepare(`SELECT count(*) FROM ${table}`).pluck().get());
}

describe('status of streams', () => {
  test('silence differs from death, a lost last frame is noticed: state, head, watermark, gaps', async () => {
    await store.store([
      frame('data', sampleEpoch, 1, opened),
      frame('data', sampleEpoch, 3, rowRecord('f', sampleStartUs, [1])),
      status(1, 5),
    ]);
    expect(store.vmStatuses()).toMatchObject([
      {
        vm: 'vm1',
        state: 'running',
        watermarkUs: sampleStartUs - 5,
        epochs: [
          {
            number: 1,
            reason: 'created',
            end: 'open',
            headSeq: 5,
            gaps: [
              { fromSeq: 2, throughSeq: 2 },
              { fromSeq: 4, throughSeq: 5 },
            ],
            missingFrames: 3,
          },
        ],
      },
    ]);
    await clock.advance(15_001);
    const [silent] = store.vmStatuses();
    expect([silent?.state, silent?.reportedState]).toEqual(['unknown', 'running']);
    expect(silent?.epochs[0]?.end).toBe('unknown');
  });

  test('the source’s clock set back: what it says next counts at once; what comes late is no news', async () => {
    const late = status(1, 1);
    await store.store([status(2, 1)]);
    clock.stepWall(-hourUs);
    const silent = status(3, 1, sampleEpoch, 'silent');
    clock.stepWall(hourUs);
    await store.store([silent, late]);
    expect(store.vmStatuses()[0]?.reportedState).toBe('silent');
  });

  test('the source’s clock ahead, or ours set back: silence is noticed all the same', async () => {
    clock.stepWall(hourUs);
    const ahead = status(1, 1);
    clock.stepWall(-hourUs);
    await store.store([ahead]);
    expect(store.vmStatuses()[0]?.state).toBe('running');
    await clock.advance(15_001);
    expect(store.vmStatuses()[0]?.state).toBe('unknown');
    await store.store([status(2, 1)]);
    clock.stepWall(-hourUs);
    expect(store.vmStatuses()[0]?.state).toBe('unknown');
    await store.store([status(3, 1)]);
    expect(store.vmStatuses()[0]?.state).toBe('running');
  });

  test('a VM whose streams were closed in order has ended, however long ago; added again it is heard as before', async () => {
    const silent: FrameRecord = {
      kind: 'status',
      vmState: 'silent',
      head: { epoch: sampleEpoch, seq: 2 },
      watermarkUs: null,
    };
    const state = (): unknown => store.vmStatuses()[0]?.state;
    await store.store([
      frame('data', sampleEpoch, 1, opened),
      frame('status', sampleEpoch, 1, opened),
      frame('status', sampleEpoch, 2, silent),
    ]);
    expect(state()).toBe('silent');
    await store.store([
      frame('data', sampleEpoch, 2, { kind: 'epoch-closed', lastSeq: 2 }),
      frame('status', sampleEpoch, 3, { kind: 'epoch-closed', lastSeq: 3 }),
    ]);
    expect([state(), store.vmStatuses()[0]?.epochs[0]?.end]).toEqual(['ended', 'closed']);
    await clock.advance(60_000);
    expect(state()).toBe('ended');
    await store.store([frame('status', nextEpoch, 1, opened)]);
    expect(state()).toBe('unknown');
    await store.store([
      frame('status', nextEpoch, 2, { ...silent, vmState: 'running', head: null }),
    ]);
    expect(state()).toBe('running');
  });

  test('an unclosed epoch shows as "end unknown" downstream; a closed one states its last seq', async () => {
    await store.store([
      frame('data', sampleEpoch, 1, opened),
      frame('data', nextEpoch, 1, opened),
      status(1, 1, nextEpoch),
    ]);
    const ends = (): unknown => store.vmStatuses()[0]?.epochs.map(({ end }) => end);
    expect(ends()).toEqual(['open', 'unknown']);
    await store.store([frame('data', sampleEpoch, 4, { kind: 'epoch-closed', lastSeq: 4 })]);
    expect(ends()).toEqual(['open', 'closed']);
    expect(store.vmStatuses()[0]?.epochs[1]).toMatchObject({ headSeq: 4, missingFrames: 2 });
  });

  test('losses of the guest and of logs are counted and shown, also after retention', async () => {
    await store.store([
      frame('data', sampleEpoch, 1, {
        kind: 'lost',
        where: 'guest-store',
        count: 7,
        fromSeq: null,
        throughSeq: null,
        reason: 'the database bound was reached',
      }),
      status(1, 4),
    ]);
    const range = { epoch: sampleEpoch, fromSeq: 2, throughSeq: 3 };
    const said = { reason: 'log-full', declaredAtUs: 1, declaredBy: 'a', proof: null } as const;
    await store.declareLost({ vm, kind: 'data' }, { ...range, ...said });
    await clock.advance(120_000);
    retention(60_000).prune();
    expect(rowCount('reported_losses')).toBe(0);
    const [shown] = store.vmStatuses();
    expect(shown?.losses).toEqual([{ place: 'guest-store', count: 7 }]);
    expect(shown?.epochs[0]).toMatchObject({ lostFrames: 2, missingFrames: 1 });
  });

  test('what intermediaries may see on the status stream is no second reading', async () => {
    const row = rowRecord('f', sampleStartUs, [1]);
    await store.store([frame('data', sampleEpoch, 1, row), frame('status', sampleEpoch, 1, row)]);
    expect(store.reader.query({ pattern: '**' }, 10).readings).toHaveLength(1);
  });
});

function retention(ageMaxMs: number): StoreRetention {
  return new StoreRetention({ store, clock }, { ageMaxMs, bytesMax: 1e9 });
}

describe('a bound on everything beside readings', () => {
  test('windows, data points and status frames end with what they belong to', async () => {
    const startMs = sampleStartUs / 1_000;
    const windows = Array.from({ length: 50 }, (_, index) => windowRecord(startMs + index * 1_000));
    await store.store([
      frame('data', sampleEpoch, 1, ...windows, rowRecord('old', sampleStartUs, [1])),
      ...Array.from({ length: 1_200 }, (_, index) => status(index + 1, 1)),
    ]);
    const pruning = retention(60_000);
    pruning.prune();
    expect([rowCount('windows'), rowCount('frames')]).toEqual([50, 1_001]);
    await clock.advance(7_200_000);
    await store.store([frame('data', sampleEpoch, 2, rowRecord('new', clock.wallUs(), [1]))]);
    for (let pass = 0; pass < 4; pass += 1) pruning.prune();
    expect(rowCount('windows')).toBe(0);
    expect(store.reader.dataPoints({ pattern: '**' }).map(({ dataPoint }) => dataPoint)).toEqual([
      'kpi/new/column1',
    ]);
    await store.store([frame('data', sampleEpoch, 3, rowRecord('old', clock.wallUs(), [2]))]);
    expect(store.reader.query({ pattern: 'kpi/old/*' }, 10).readings).toHaveLength(1);
  });
});
