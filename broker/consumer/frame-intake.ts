import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import { decodeFrameBatch } from '../../common/wire/frame-batch.ts';
import { decodeFrameHeader } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import type { FrameInspector, LostFrames } from '../ports.ts';
import { streamKey } from '../stream-key.ts';
import type { ConsumerDeps, ConsumerOptions } from './consumer-options.ts';
import type { EpochState } from './epoch-state.ts';
import type { KnownEpochs } from './known-epochs.ts';
import { SinkQueue } from './sink-queue.ts';

/** A frame that breaks the hash chain is fetched anew this many times, then it is recorded as lost. */
const chainRefusalsMax = 3;

/** What follows from frames that came, or did not. */
export interface IntakeOutcome {
  /** Something of the epoch may be missing. */
  query(state: EpochState): void;
  /** More of the epoch is durable. */
  stored(state: EpochState): void;
  /** The sink has room again. */
  settled(): void;
}

/**
 * What becomes of frames that arrive, live or asked for: refused, known already, in contradiction to their neighbours,
 * or handed to the sink; a relay hands new live ones on at once.
 */
export class FrameIntake {
  readonly #deps: ConsumerDeps;
  readonly #options: ConsumerOptions;
  readonly #epochs: KnownEpochs;
  readonly #counters: StageCounters;
  readonly #outcome: IntakeOutcome;
  readonly #storing: SinkQueue;

  constructor(
    deps: ConsumerDeps,
    options: ConsumerOptions,
    parts: { readonly epochs: KnownEpochs; readonly counters: StageCounters },
    outcome: IntakeOutcome,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#epochs = parts.epochs;
    this.#counters = parts.counters;
    this.#outcome = outcome;
    this.#storing = new SinkQueue(deps.sink, {
      stored: (frames) => {
        this.#stored(frames);
      },
      failed: (frames, cause) => {
        this.#notStored(frames, cause);
      },
      settled: () => {
        outcome.settled();
      },
    });
  }

  /** Whether the sink keeps up well enough for more to be asked for. */
  get hasRoom(): boolean {
    return this.#storing.bytes <= this.#options.storingBytesMax / 2;
  }

  /** Whether so little waits for the sink that more may come meanwhile: one window of back-fill. */
  get keepsUp(): boolean {
    return this.#storing.bytes <= this.#options.creditBytes;
  }

  /** A relay takes an epoch from one neighbour only; what another offers is a loop, or not its own. */
  accepts(stream: StreamId, epoch: Epoch): boolean {
    if (this.#deps.takes?.(stream) === false) return false;
    const code = this.#deps.relaying?.refusalOf(stream, epoch);
    if (code === undefined) return true;
    this.#counters.failAtOnce();
    const { relation } = this.#options;
    const { number } = epoch;
    this.#deps.log.warn('epoch-refused', {
      relation,
      code,
      stream: streamKey(stream),
      epoch: number,
    });
    return false;
  }

  /** New ones are handed on before they are stored. */
  takeLive(payload: Uint8Array): void {
    const { taken } = this.#takeBatch(payload, 0);
    if (taken.length > 0) this.#deps.relaying?.forward(taken);
  }

  /**
   * Frames that were asked for; those beyond `grantedBytes` are as unasked as live ones. Returns undefined when the bytes are
   * no batch.
   */
  takeRange(
    payload: Uint8Array,
    grantedBytes: number,
  ): { readonly bytes: number; readonly isNew: boolean } | undefined {
    const { taken, bytes } = this.#takeBatch(payload, grantedBytes);
    return bytes === undefined ? undefined : { bytes, isNew: taken.length > 0 };
  }

  /** What was given up and is not here is recorded, durably; not again what was recorded before. */
  declareLost(state: EpochState, lost: LostFrames): void {
    const isKnown = state.isKnownLost(lost);
    state.noteLost(lost);
    if (isKnown) return;
    this.#storing.track(this.#recordLoss(state, lost));
    const { fromSeq, throughSeq, reason, declaredBy } = lost;
    this.#deps.log.warn('frames-lost', {
      relation: this.#options.relation,
      stream: streamKey(state.stream),
      epoch: state.epoch.number,
      fromSeq,
      throughSeq,
      reason,
      declaredBy,
    });
  }

  /** Resolves when the sink has nothing in hand. */
  drain(): Promise<void> {
    return this.#storing.drain();
  }

  async #recordLoss(state: EpochState, lost: LostFrames): Promise<void> {
    try {
      await this.#deps.sink.declareLost(state.stream, lost);
      state.stored.addRange(lost.fromSeq, lost.throughSeq);
      this.#outcome.stored(state);
    } catch (cause) {
      state.noteNotLost(lost);
      this.#epochs.incomplete.add(state);
      this.#deps.log.error('loss-not-recorded', { cause: String(cause) });
    }
  }

  /** `bytes` of all frames; undefined when the payload is no batch. */
  #takeBatch(
    payload: Uint8Array,
    grantedBytes: number,
  ): {
    readonly taken: readonly EncodedFrame[];
    readonly bytes: number | undefined;
  } {
    const batch = decodeFrameBatch(payload);
    if (!batch.ok) {
      this.#refuseBytes(payload, batch.rule);
      return { taken: [], bytes: undefined };
    }
    const taken: EncodedFrame[] = [];
    let bytesBefore = 0;
    for (const bytes of batch.frames) {
      const decoded = decodeFrameHeader(bytes);
      if (!decoded.ok) {
        this.#refuseBytes(bytes, decoded.problem.rule);
        continue;
      }
      const frame = { header: decoded.header, bytes };
      if (this.#take(frame, bytesBefore < grantedBytes)) taken.push(frame);
      bytesBefore += bytes.length;
    }
    return { taken, bytes: bytesBefore };
  }

  #refuseBytes(bytes: Uint8Array, rule: string): void {
    this.#deps.quotas?.chargeNonsense(bytes.length);
    this.#counters.failAtOnce();
    this.#deps.log.warn('frame-refused', { relation: this.#options.relation, rule });
  }

  /** Returns whether the frame is new, and on its way into the sink. */
  #take(frame: EncodedFrame, isGranted: boolean): boolean {
    const { inspector } = this.#deps;
    const { stream, epoch, seq } = frame.header;
    if (!this.accepts(stream, epoch)) return false;
    if (inspector !== undefined && !this.#passes(frame, inspector)) return false;
    const state = this.#epochs.of(stream, epoch);
    this.#counters.accepted += 1;
    const isOver = !isGranted && this.#isOverQuota(frame, state);
    if (isOver || state.isDuplicate(seq) || this.#isTooMuch(frame, state)) {
      state.headSeq = Math.max(state.headSeq, seq);
      this.#epochs.incomplete.add(state);
      this.#counters.dropped += 1;
      return false;
    }
    if (!state.take(frame)) {
      this.#chainBroken(state, seq);
      return false;
    }
    this.#storing.push(frame);
    if (state.received.contiguousThroughSeq < state.headSeq) this.#outcome.query(state);
    return true;
  }

  /** Frames that come faster than the sink takes them, or that leave more gaps than are kept in mind. */
  #isTooMuch({ header, bytes }: EncodedFrame, state: EpochState): boolean {
    const { storingBytesMax, runsPerEpochMax } = this.#options;
    const isFull = this.#storing.bytes + bytes.length > storingBytesMax;
    return (isFull && this.#storing.bytes > 0) || state.runsWith(header.seq) > runsPerEpochMax;
  }

  /** It is late then, not lost: what is over the quota is asked for as the quota allows. */
  #isOverQuota({ header, bytes }: EncodedFrame, state: EpochState): boolean {
    const { quotas } = this.#deps;
    if (quotas === undefined || state.isDuplicate(header.seq)) return false;
    const { vm } = header.stream;
    if (!state.mustWait(header.seq) && quotas.take(vm, bytes.length)) return false;
    state.isDelayed = true;
    quotas.delayed(vm, bytes.length);
    return true;
  }

  /** What does not pass is not even known to exist: what is missing is asked for by what the producer announces. */
  #passes(frame: EncodedFrame, inspector: FrameInspector): boolean {
    const { stream, epoch, seq } = frame.header;
    if (this.#epochs.known(stream, epoch)?.isDuplicate(seq) === true) {
      inspector.repeated(frame);
      return true;
    }
    if (inspector.inspect(frame) === 'take') return true;
    this.#counters.failAtOnce();
    return false;
  }

  #chainBroken(state: EpochState, seq: number): void {
    this.#counters.failed += 1;
    const refusals = state.refusalsOf(seq);
    this.#deps.log.error('hash-chain-broken', {
      relation: this.#options.relation,
      stream: streamKey(state.stream),
      epoch: state.epoch.number,
      seq,
      refusals,
    });
    if (refusals < chainRefusalsMax) {
      this.#outcome.query(state);
      return;
    }
    this.declareLost(state, {
      epoch: state.epoch,
      fromSeq: seq,
      throughSeq: seq,
      reason: 'chain-broken',
      declaredAtUs: this.#deps.clock.wallUs(),
      declaredBy: null,
      proof: null,
    });
  }

  #stored(frames: readonly EncodedFrame[]): void {
    for (const { header } of frames) {
      const state = this.#epochs.of(header.stream, header.epoch);
      state.stored.add(header.seq);
      this.#outcome.stored(state);
    }
    this.#counters.forwarded += frames.length;
    const newest = frames.at(-1);
    if (newest === undefined) return;
    this.#counters.lagMs = (this.#deps.clock.wallUs() - newest.header.producedAtUs) / 1_000;
  }

  #notStored(frames: readonly EncodedFrame[], cause: unknown): void {
    this.#counters.failed += frames.length;
    this.#deps.log.error('frames-not-stored', { frameCount: frames.length, cause: String(cause) });
    for (const { header } of frames) {
      const state = this.#epochs.of(header.stream, header.epoch);
      state.forget([header.seq]);
      this.#epochs.incomplete.add(state);
    }
  }
}
