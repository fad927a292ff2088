import { encryptedDataPoint, infraDataPoint, kpiDataPoint } from '../../common/wire/data-point.ts';
import type { Frame, FrameRecord } from '../../common/wire/frame.ts';
import {
  dataStream,
  deliveryRecord,
  rowRecord,
  sampleEpoch,
  sampleStartUs,
} from './sample-frames.ts';

const startMs = sampleStartUs / 1_000;

const records: readonly FrameRecord[] = [
  {
    kind: 'epoch-opened',
    predecessor: { epoch: { number: 0, nonce: 'ffeeddccbbaa9988' }, lastSeq: 41 },
    generation: 'g-1',
    reason: 'moved',
  },
  rowRecord('app/users.csv', sampleStartUs - 1_500, [
    42,
    -7,
    12.34,
    'néw',
    null,
    9_223_372_036_854_775_807n,
  ]),
  rowRecord('app/users.csv', sampleStartUs - 500, [43, -8, 0.1, '', -0, 1e300]),
  deliveryRecord([
    {
      dataPoint: encryptedDataPoint('secret'),
      timeUs: sampleStartUs,
      uncertaintyUs: 0,
      value: Uint8Array.of(0, 1, 255),
      held: true,
    },
  ]),
  {
    kind: 'delivery',
    delivery: {
      kind: 'processed',
      specifierId: 'cpu',
      descriptorRevision: 3,
      dataPoint: infraDataPoint('cpu', 'usage_ratio'),
      window: { startMs: startMs - 60_000, endMs: startMs },
      revision: 1,
      predicateState: 'entering',
      format: 'median',
      value: 0.75,
      timeUs: sampleStartUs - 1,
      count: 60,
      skippedCount: 2,
      heldCount: 1,
      relativeErrorMax: 0.01,
    },
  },
  {
    kind: 'delivery',
    delivery: {
      kind: 'processed',
      specifierId: 'cpu',
      descriptorRevision: 3,
      dataPoint: kpiDataPoint('f', 'c'),
      window: null,
      revision: 0,
      predicateState: null,
      format: 'max',
      value: null,
      timeUs: sampleStartUs,
      count: 0,
      skippedCount: 0,
    },
  },
  {
    kind: 'lost',
    where: 'guest-store',
    count: 5,
    fromSeq: null,
    throughSeq: null,
    reason: 'database full',
  },
  {
    kind: 'status',
    vmState: 'running',
    head: { epoch: sampleEpoch, seq: 12 },
    watermarkUs: sampleStartUs - 2_000,
  },
  { kind: 'epoch-closed', lastSeq: 300 },
];

/** A frame with every kind of record and value: its bytes are pinned in test/golden/wire. */
export const goldenFrame: Frame = {
  header: {
    stream: dataStream('vm-1'),
    epoch: sampleEpoch,
    seq: 300,
    previousHash: Uint8Array.from({ length: 32 }, (_, index) => index),
    producedAtUs: sampleStartUs,
  },
  records,
};
