import type { FrameSink, LostFrames, StoredRange } from '../../broker/ports.ts';
import { RangeSet } from '../../broker/range-set.ts';
import { epochKey } from '../../broker/stream-key.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';

/** Keeps what it is given, in order of arrival; asserts nothing, so that a test sees duplicates. */
export class RecordingSink implements FrameSink {
  readonly frames: EncodedFrame[] = [];
  readonly lost: LostFrames[] = [];
  failNext = false;

  store(frames: readonly EncodedFrame[]): Promise<void> {
    if (this.failNext) {
      this.failNext = false;
      return Promise.reject(new Error('the disk is full'));
    }
    this.frames.push(...frames);
    return Promise.resolve();
  }

  declareLost(_stream: StreamId, lost: LostFrames): Promise<void> {
    this.lost.push(lost);
    return Promise.resolve();
  }

  stored(stream: StreamId): readonly StoredRange[] {
    const epochs = new Map<string, { epoch: Epoch; ranges: RangeSet }>();
    for (const { header } of this.frames) {
      if (header.stream.vm !== stream.vm || header.stream.kind !== stream.kind) continue;
      const key = epochKey(header.stream, header.epoch);
      const known = epochs.get(key) ?? { epoch: header.epoch, ranges: new RangeSet() };
      known.ranges.add(header.seq);
      epochs.set(key, known);
    }
    return [...epochs.values()].flatMap(({ epoch, ranges }) =>
      ranges.ranges.map((range) => ({ epoch, ...range })),
    );
  }

  /** Seqs of an epoch in order of arrival. */
  seqs(epoch: Epoch): number[] {
    return this.frames
      .filter(({ header }) => header.epoch.nonce === epoch.nonce)
      .map(({ header }) => header.seq);
  }
}
