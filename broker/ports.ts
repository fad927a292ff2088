import type { KeyClaim } from '../common/signing/key-statement.ts';
import type { JudgedLoss, LossProof } from '../common/signing/loss-judge.ts';
import type { DeclaredLosses } from '../common/signing/loss-signer.ts';
import type { SignedStatements, StatementSigner } from '../common/signing/statement-signer.ts';
import type { FrameProtection } from '../common/wire/frame-codec.ts';
import type {
  EncodedFrame,
  Epoch,
  EpochOpened,
  FrameHeader,
  FrameRecord,
  StreamId,
} from '../common/wire/frame.ts';
import type { LossReason } from '../common/wire/loss-reason.ts';
import type { SeqRange } from './range-set.ts';

/**
 * The origin's side of a stream log. Every call runs inside the caller's SQLite transaction, so that frame, guest
 * cursor and window state become durable together or not at all; forwarding follows the commit.
 */
export interface FrameAppender {
  /** Opens the next epoch (closing nothing) and appends its first frame, which holds the `epoch-opened` record. */
  openEpoch(
    stream: StreamId,
    opening: { readonly generation: string | null; readonly reason: EpochReason },
  ): { readonly epoch: Epoch; readonly frame: EncodedFrame };
  /** Appends one frame to the open epoch: assigns seq, links the previous hash, encodes. */
  append(stream: StreamId, records: readonly FrameRecord[]): EncodedFrame;
  /** Appends the closing frame. A closed epoch takes no further frame. */
  closeEpoch(stream: StreamId): EncodedFrame;
  /** The open epoch and its last seq; undefined when the stream has none open. */
  head(stream: StreamId): { readonly epoch: Epoch; readonly seq: number } | undefined;
}

export type EpochReason = EpochOpened['reason'];

/** Says how each frame is protected; called once for each append, inside its transaction, which it may fail. */
export interface FrameProtector {
  protect(header: FrameHeader, records: readonly FrameRecord[]): FrameProtection;
}

/**
 * Judges a frame before anything is made of it. `take`: as if nobody had asked. `not-yet`: it can't be judged now; it is
 * treated as if it had not come, and asked for again. `refuse`: the same, and whoever judges has made a record of it.
 * A frame that was refused is not in any way known to exist.
 */
export interface FrameInspector {
  inspect(frame: EncodedFrame): 'take' | 'not-yet' | 'refuse';
  /** A frame came for a place that is taken; most are the same frame again. */
  repeated(frame: EncodedFrame): void;
}

/** Sends what is committed. Never blocks and never throws for a broken transport: the log has the frame. */
export interface FrameForwarder {
  forward(frames: readonly EncodedFrame[]): void;
}

/** Where a consumer puts what it received. */
export interface FrameSink {
  /**
   * Makes `frames` durable, in any order, each (stream, epoch, seq) once; resolves after the commit. What was there
   * already is ignored.
   */
  store(frames: readonly EncodedFrame[]): Promise<void>;
  /**
   * Makes durable that frames are lost, as far as none of them is here; withdrawn for each that is stored after all.
   */
  declareLost(stream: StreamId, lost: LostFrames): Promise<void>;
  /** Ranges of seq that were made durable here, retention or not, ascending, for each epoch of `stream`. */
  stored(stream: StreamId): readonly StoredRange[];
}

/** Frames of an epoch that were given up, and who says so. */
export interface LostFrames extends SeqRange {
  readonly epoch: Epoch;
  readonly reason: LossReason;
  /** By the clock of who gave them up, µs of the epoch. */
  readonly declaredAtUs: number;
  /** The relation of the neighbour that declared it; null: found here. */
  readonly declaredBy: string | null;
  /** The neighbour's signed declaration, of these frames and perhaps others; null: it was not signed. */
  readonly proof: LossProof | null;
}

/** Judges what a producer declares lost before any of it counts. */
export interface LossJudges {
  /** Those that count; whoever judges has made a record of the others. */
  judge(declared: DeclaredLosses): readonly JudgedLoss[];
}

export interface StoredRange {
  readonly epoch: Epoch;
  readonly fromSeq: number;
  readonly throughSeq: number;
}

/** What a producer states to its consumers of the keys that sign epochs. */
export interface KeyStatements {
  /** Undefined for an epoch that is not signed, or whose key nobody has stated here yet. */
  claimOf(stream: StreamId, epoch: Epoch): KeyClaim | undefined;
  readonly signer: StatementSigner;
}

/** Hears what a producer states. */
export interface KeyStatementTaker {
  /** Verifies, and makes durable what is new: these claims are returned. */
  take(signed: SignedStatements): readonly KeyClaim[];
}
