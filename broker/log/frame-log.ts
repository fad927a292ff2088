import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';
import type { SeqRange } from '../range-set.ts';

/** One epoch that a log knows, up to its newest frame; older ones may be missing, pruned or given up. */
export interface LogEpoch {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly lastSeq: number;
}

/** A frame in the log, as it was committed. */
export interface LoggedFrame {
  readonly seq: number;
  readonly bytes: Uint8Array;
}

/** A range that the log can't give any more, and why. */
export interface LostRange extends SeqRange {
  readonly reason: LossReason;
  /** µs of the epoch. */
  readonly declaredAtUs: number;
}

/** What becomes of frames that are removed though a subscriber needs them. */
export interface GivenUpFrames {
  /** Makes a record of frames of an epoch, in the transaction that removes them. */
  note(epochId: number, range: SeqRange, reason: LossReason): void;
}

/** What a producer serves queries from: the origin's own log, or what a relay has received. */
export interface FrameLog {
  /** Every epoch of every stream that the log knows, oldest first. */
  epochs(): LogEpoch[];
  /**
   * Frames of `range` that are there, ascending, up to `bytesMax` bytes in all but at least one if there is any.
   * Frames that were given up are left out, and {@link FrameLog.lostIn} names them; so are those still to come.
   */
  read(stream: StreamId, epoch: Epoch, range: SeqRange, bytesMax: number): LoggedFrame[];
  /**
   * What the log had, or was told of as lost, and can't give any more, as far as it reaches into `range`; ascending. What
   * was declared in one may reach beyond it.
   */
  lostIn(stream: StreamId, epoch: Epoch, range: SeqRange): LostRange[];
}
