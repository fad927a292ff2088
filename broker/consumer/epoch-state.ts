import { frameHash } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import { RangeSet, type SeqRange } from '../range-set.ts';

/** Lost ranges of an epoch that are asked for once more in one go; others wait for the next. */
const doubtedRangesMax = 64;

/**
 * What a consumer knows of one epoch. `received` are frames that are stored, on their way into the store, or declared
 * lost by the producer; `stored` those that are durable or declared lost.
 */
export class EpochState {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly received = new RangeSet();
  readonly stored = new RangeSet();
  readonly #lost = new RangeSet();
  /** The newest frame that is known to exist. */
  headSeq = 0;
  /** The newest frame that the producer announced; it may still be on its way live. */
  announcedSeq = 0;
  /** When (monotonic) what was announced counts as known to exist. */
  #announcedFromMs = Number.POSITIVE_INFINITY;
  /** What the producer was told last. */
  reportedThroughSeq = 0;
  /** No query before this (monotonic): the last one brought nothing. */
  queryNotBeforeMs = 0;
  fruitlessQueries = 0;
  /**
   * A live frame was over the quota. Until the ones before it have come by query, live frames are left to queries too, so
   * that one gap is missing and not every other frame.
   */
  isDelayed = false;
  /** Hashes of received frames whose successor is not yet here, and what the successors' headers demand. */
  readonly #hashes = new Map<number, Uint8Array>();
  readonly #demandedHashes = new Map<number, Uint8Array>();
  readonly #refusals = new Map<number, number>();

  constructor(stream: StreamId, epoch: Epoch) {
    this.stream = stream;
    this.epoch = epoch;
  }

  /** The producer has frames up to `seq`; from `fromMs` on those that are not here count as missing. */
  announce(seq: number, fromMs: number): void {
    if (seq <= Math.max(this.headSeq, this.announcedSeq)) return;
    this.announcedSeq = seq;
    this.#announcedFromMs = fromMs;
  }

  /** Makes what was announced long enough ago count. */
  settle(nowMs: number): void {
    if (nowMs < this.#announcedFromMs) return;
    this.headSeq = Math.max(this.headSeq, this.announcedSeq);
    this.#announcedFromMs = Number.POSITIVE_INFINITY;
  }

  /** Everything that was ever announced is here, or declared lost, and durable, and nothing is asked for once more. */
  get isComplete(): boolean {
    const lastSeq = Math.max(this.headSeq, this.announcedSeq);
    return this.watermark >= lastSeq && this.received.contiguousThroughSeq >= lastSeq;
  }

  /** Frames that the sink had when we started. */
  noteStoredBefore(range: SeqRange): void {
    this.received.addRange(range.fromSeq, range.throughSeq);
    this.stored.addRange(range.fromSeq, range.throughSeq);
    this.headSeq = Math.max(this.headSeq, range.throughSeq);
  }

  /** The producer gave these up; no query asks for them, but one that appears after all is taken. */
  noteLost({ fromSeq, throughSeq }: SeqRange): void {
    this.received.addRange(fromSeq, throughSeq);
    this.#lost.addRange(fromSeq, throughSeq);
    this.headSeq = Math.max(this.headSeq, throughSeq);
  }

  /** The loss could not be recorded. */
  noteNotLost({ fromSeq, throughSeq }: SeqRange): void {
    for (const lost of new RangeSet(this.#lost.ranges).ranges) {
      const from = Math.max(lost.fromSeq, fromSeq);
      const through = Math.min(lost.throughSeq, throughSeq);
      if (from > through) continue;
      this.received.deleteRange(from, through);
      this.#lost.deleteRange(from, through);
    }
  }

  /** All of them were declared lost before. */
  isKnownLost({ fromSeq, throughSeq }: SeqRange): boolean {
    return this.#lost.gaps(fromSeq, throughSeq).length === 0;
  }

  /** What was declared lost, in `range` if it is given, may be there again: it is asked for once more. */
  doubtLost(range: SeqRange = { fromSeq: 1, throughSeq: this.headSeq }): void {
    let count = 0;
    for (const lost of this.#lost.ranges) {
      if (lost.throughSeq < range.fromSeq || lost.fromSeq > range.throughSeq) continue;
      const fromSeq = Math.max(lost.fromSeq, range.fromSeq);
      this.received.deleteRange(fromSeq, Math.min(lost.throughSeq, range.throughSeq));
      count += 1;
      if (count >= doubtedRangesMax) return;
    }
  }

  /** They were here and had to make room; they are asked for again. */
  noteEvicted({ fromSeq, throughSeq }: SeqRange): void {
    this.received.deleteRange(fromSeq, throughSeq);
    this.headSeq = Math.max(this.headSeq, throughSeq);
  }

  isDuplicate(seq: number): boolean {
    return this.received.has(seq) && !this.#lost.has(seq);
  }

  /** How many runs of frames with gaps between them there would be with `seq`; each costs memory and time. */
  runsWith(seq: number): number {
    const { received } = this;
    const isAlone = !received.has(seq - 1) && !received.has(seq) && !received.has(seq + 1);
    return received.ranges.length + (isAlone ? 1 : 0);
  }

  /** Every frame up to here is stored or declared lost. */
  get watermark(): number {
    return this.stored.contiguousThroughSeq;
  }

  /** Nothing is known to exist and not here. */
  get hasAll(): boolean {
    return this.received.contiguousThroughSeq >= this.headSeq;
  }

  /** What is known to exist and not here. */
  gaps(): SeqRange[] {
    if (this.hasAll) return [];
    return this.received.gaps(1, this.headSeq);
  }

  /**
   * Takes a new frame in, if it fits its neighbours' hashes where those are known. Call only when it is no duplicate.
   * Returns false, and takes nothing in, when the chain is broken.
   */
  take(frame: EncodedFrame): boolean {
    const { seq, previousHash } = frame.header;
    const hash = frameHash(frame.bytes);
    const before = this.#hashes.get(seq - 1);
    const demanded = this.#demandedHashes.get(seq);
    if (before !== undefined && !isSame(before, previousHash)) return this.#refuse(seq);
    if (demanded !== undefined && !isSame(demanded, hash)) return this.#refuse(seq);
    if (before === undefined) this.#demandedHashes.set(seq - 1, Uint8Array.from(previousHash));
    else this.#hashes.delete(seq - 1);
    if (demanded === undefined) this.#hashes.set(seq, hash);
    else this.#demandedHashes.delete(seq);
    if (seq === 1 || this.received.has(seq - 1)) this.#demandedHashes.delete(seq - 1);
    if (this.received.has(seq + 1)) this.#hashes.delete(seq);
    this.received.add(seq);
    this.#lost.deleteRange(seq, seq);
    this.headSeq = Math.max(this.headSeq, seq);
    return true;
  }

  /** Whether a frame that comes live now has to wait for those before it. */
  mustWait(seq: number): boolean {
    this.isDelayed &&= seq > this.received.contiguousThroughSeq + 1;
    return this.isDelayed;
  }

  refusalsOf(seq: number): number {
    return this.#refusals.get(seq) ?? 0;
  }

  /** Frames that could not be stored are as if never received. */
  forget(seqs: readonly number[]): void {
    for (const seq of seqs) {
      this.received.deleteRange(seq, seq);
      this.#hashes.delete(seq);
      this.#demandedHashes.delete(seq - 1);
    }
  }

  #refuse(seq: number): false {
    this.#refusals.set(seq, this.refusalsOf(seq) + 1);
    this.headSeq = Math.max(this.headSeq, seq);
    return false;
  }
}

function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}
