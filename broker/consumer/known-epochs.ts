import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { FrameSink } from '../ports.ts';
import { epochKey } from '../stream-key.ts';
import { EpochState } from './epoch-state.ts';

/** Each announced epoch that is new makes room for itself: a message may bring hundreds. */
const epochsLookedAtMax = 64;

/**
 * What a consumer knows of each epoch: at first what the sink has of it. At most `epochsMax` are kept; a forgotten one is
 * read from the sink again when it is heard of.
 */
export class KnownEpochs {
  /** Epochs of which something is missing, or not yet durable. */
  readonly incomplete = new Set<EpochState>();
  /** Epochs whose watermark the producer has not been told. */
  readonly unreported = new Set<EpochState>();
  readonly #sink: FrameSink;
  readonly #epochsMax: number;
  readonly #epochs = new Map<string, EpochState>();

  constructor(sink: FrameSink, epochsMax: number) {
    this.#sink = sink;
    this.#epochsMax = epochsMax;
  }

  /** Undefined for an epoch that is not kept; looking does not begin to keep it. */
  known(stream: StreamId, epoch: Epoch): EpochState | undefined {
    return this.#epochs.get(epochKey(stream, epoch));
  }

  of(stream: StreamId, epoch: Epoch): EpochState {
    const key = epochKey(stream, epoch);
    const known = this.#epochs.get(key);
    if (known !== undefined) return known;
    if (this.#epochs.size >= this.#epochsMax) this.#forget();
    const state = new EpochState(stream, epoch);
    this.#epochs.set(key, state);
    for (const { epoch: storedEpoch, ...range } of this.#sink.stored(stream)) {
      if (epochKey(stream, storedEpoch) !== key) continue;
      state.noteStoredBefore(range);
      this.unreported.add(state);
    }
    return state;
  }

  /** A producer that answers again may have again what it had given up. */
  doubtLost(): void {
    for (const state of this.#epochs.values()) state.doubtLost();
  }

  /** A complete one of the oldest epochs; else the oldest of all, whose gaps the next announcement shows again. */
  #forget(): void {
    let oldest: readonly [string, EpochState] | undefined;
    let lookedAt = 0;
    for (const entry of this.#epochs) {
      oldest ??= entry;
      if (entry[1].isComplete) oldest = entry;
      lookedAt += 1;
      if (entry[1].isComplete || lookedAt === epochsLookedAtMax) break;
    }
    if (oldest === undefined) return;
    const [key, state] = oldest;
    this.#epochs.delete(key);
    this.incomplete.delete(state);
    this.unreported.delete(state);
  }
}
