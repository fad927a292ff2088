import { kpiDataPoint } from '../../common/wire/data-point.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import { firstPreviousHash, encodeFrame, frameHash } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, FrameRecord, StreamId } from '../../common/wire/frame.ts';
import type { Value } from '../../common/wire/value.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';

export const sampleEpoch: Epoch = { number: 1, nonce: '00112233445566ff' };
export const sampleStartUs = 1_790_000_000_000_000;

/** The data stream of a VM named `vm`. */
export function dataStream(vm: string): StreamId {
  return { vm: vmIdSchema.parse(vm), kind: 'data' };
}

/** A raw delivery of one row of file `file`, one column for each value. */
export function rowRecord(file: string, timeUs: number, values: readonly Value[]): FrameRecord {
  return deliveryRecord(
    values.map((value, index) => ({
      dataPoint: kpiDataPoint(file, `column${index + 1}`),
      timeUs,
      uncertaintyUs: 120,
      value,
      held: false,
    })),
  );
}

/** A raw delivery of specifier `all` without a window. */
export function deliveryRecord(measurements: readonly Measurement[]): FrameRecord {
  return {
    kind: 'delivery',
    delivery: {
      kind: 'raw',
      specifierId: 'all',
      descriptorRevision: 1,
      window: null,
      revision: 0,
      predicateState: null,
      measurements,
    },
  };
}

/** Frames 1 to `count` of one epoch, chained by hash, each with one row whose first value is its seq. */
export function chainedFrames(
  stream: StreamId,
  count: number,
  epoch: Epoch = sampleEpoch,
): EncodedFrame[] {
  const frames: EncodedFrame[] = [];
  let previousHash = firstPreviousHash;
  for (let seq = 1; seq <= count; seq += 1) {
    const producedAtUs = sampleStartUs + seq * 1_000;
    const header = { stream, epoch, seq, previousHash, producedAtUs };
    const bytes = encodeFrame({ header, records: [rowRecord('users', producedAtUs, [seq])] });
    previousHash = frameHash(bytes);
    frames.push({ header, bytes });
  }
  return frames;
}
