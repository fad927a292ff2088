import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import type { StoredBy } from '../log/log-cursors.ts';
import type { MqttTransport } from '../mqtt/mqtt-transport.ts';
import type { FrameInspector, FrameSink, KeyStatementTaker, LossJudges } from '../ports.ts';
import type { IntakeQuotas } from '../quota/byte-quotas.ts';

export interface ConsumerOptions {
  /** The subtree that consumer and producer share. */
  readonly relation: string;
  readonly streams: 'all' | readonly StreamId[];
  /** What a stored frame means upstream: a primary site is the final reader. */
  readonly storedBy: StoredBy;
  /** Frames handed to the sink and not yet durable; beyond it frames are dropped and asked for later. */
  readonly storingBytesMax: number;
  /** Bytes of back-fill under way for one query at most; less on a slow link, so that live frames don't wait behind it. */
  readonly creditBytes: number;
  readonly queriesMax: number;
  /** Frames announced within a session are asked for only after this: they are probably on their way. */
  readonly announcedGraceMs: number;
  /** Epochs kept in memory; beyond it the oldest complete ones are read from the sink when they are announced again. */
  readonly epochsMax: number;
  /** Runs of frames with gaps between them, for each epoch; one more is dropped and asked for when there are fewer. */
  readonly runsPerEpochMax: number;
  /** A query that brings nothing for this long is asked again. */
  readonly queryTimeoutMs: number;
  /** How often stored watermarks go upstream at most. */
  readonly reportIntervalMs: number;
  /** How often time-outs are looked at. */
  readonly checkIntervalMs: number;
  /** Silence of the producer that means it does not know us any more; at least three of its announcing intervals. */
  readonly silenceMsMin: number;
}

export const consumerDefaults: Omit<ConsumerOptions, 'relation' | 'storedBy'> = {
  streams: 'all',
  storingBytesMax: 32 * 1_024 * 1_024,
  creditBytes: 512 * 1_024,
  queriesMax: 4,
  announcedGraceMs: 250,
  epochsMax: 32_768,
  runsPerEpochMax: 4_096,
  queryTimeoutMs: 5_000,
  // The producer makes them durable with its next announcement, each second: more often would only cost.
  reportIntervalMs: 500,
  checkIntervalMs: 500,
  silenceMsMin: 3_000,
};

export interface ConsumerDeps {
  readonly transport: MqttTransport;
  readonly sink: FrameSink;
  /** Without it every frame that fits its neighbours is taken. */
  readonly inspector?: FrameInspector;
  /** Without it what the producer states of keys is ignored. */
  readonly statements?: KeyStatementTaker;
  /** Without it whatever comes is taken as far as the sink keeps up. */
  readonly quotas?: IntakeQuotas;
  /** Without it whatever the producer declares lost is lost, unsigned. */
  readonly losses?: LossJudges;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Of other streams nothing is taken or asked for, whatever comes; without it everything is taken. */
  readonly takes?: (stream: StreamId) => boolean;
  /** What only a relay does with what it consumes. */
  readonly relaying?: RelayHooks;
}

/** Every frame of an epoch up to `throughSeq` is stored. */
export interface Watermark {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly throughSeq: number;
}

/**
 * `not-allowed`: the relation may not bring the stream. `already-relayed`: another neighbour is where the epoch comes from.
 * `too-many`: the neighbour names more VMs or epochs than it may; it is heard again when it repeats it.
 */
export type EpochRefusal = 'not-allowed' | 'already-relayed' | 'too-many';

export interface RelayHooks {
  /** Why nothing of this epoch is taken from this producer; undefined when it is. Refusals are counted. */
  refusalOf(stream: StreamId, epoch: Epoch): EpochRefusal | undefined;
  /** Hears of new live frames at once, before they are stored: a relay forwards, then stores, then acknowledges. */
  forward(frames: readonly EncodedFrame[]): void;
  /** Hears of epochs whose keys are known only now. */
  stated(epochs: readonly Pick<Watermark, 'stream' | 'epoch'>[]): void;
  /** How far the final reader has what this producer sent; told after each subscription. */
  finalWatermarks(): readonly Watermark[];
}
