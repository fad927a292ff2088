import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import { LossSigner } from '../../common/signing/loss-signer.ts';
import {
  controlEntriesMax,
  controlMessageVersion,
  encodeControl,
  type DownstreamMessage,
  type HeadEntry,
  type QueryMessage,
  type UpstreamMessage,
} from '../../common/wire/control-message.ts';
import { encodeFrameBatch } from '../../common/wire/frame-batch.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import type { LogEpoch, LoggedFrame } from '../log/frame-log.ts';
import { relationTopics, type RelationTopics } from '../mqtt/topics.ts';
import { consumerSays, ControlQuota } from '../quota/control-quota.ts';
import { epochKey, streamKey } from '../stream-key.ts';
import { AvailableRanges } from './available-ranges.ts';
import { LiveQueue } from './live-queue.ts';
import { LossSender } from './loss-sender.ts';
import type { ProducerDeps, ProducerOptions } from './producer-options.ts';
import { RangeQueries, type QueryRefusal } from './range-queries.ts';
import { StatementSender, type StatedEpoch } from './statement-sender.ts';
import { ToldWatermarks } from './told-watermarks.ts';

interface Session {
  readonly id: string;
  /** undefined: all that the policy allows. */
  readonly streams: ReadonlySet<string> | undefined;
  readonly queries: RangeQueries;
}

/** A head that moved is announced this many times, so that one lost message does not hide a lost last frame. */
const announcedTimes = 3;
/** Every so many announcements all heads are told, moved or not. */
const completeAnnouncementEvery = 30;
/** A relay's back-fill comes in many small commits; what they bring is offered together. */
const offerDelayMs = 20;

/**
 * What a producer keeps for one relation: the consumer's session, live frames on their way, queries, cursors.
 *
 *   no session --subscribe--> session --subscribe (other id)--> replaced
 *                                    --unsubscribe--> no session, cursor gone
 */
export class ProducerRelation {
  readonly relation: string;
  /** Of what the consumer says. */
  readonly controlQuota: ControlQuota;
  readonly #deps: ProducerDeps;
  readonly #options: ProducerOptions;
  readonly #instance: string;
  readonly #counters: StageCounters;
  readonly #topics: RelationTopics;
  readonly #live: LiveQueue;
  readonly #moved = new Map<string, { head: HeadEntry; timesLeft: number }>();
  readonly #watermarks: ToldWatermarks;
  readonly #available = new AvailableRanges();
  readonly #statements: StatementSender;
  readonly #losses: LossSender;
  #isOfferDue = false;
  #session: Session | undefined;
  /** Control messages that the transport has not got rid of. */
  #controlBytes = 0;
  #ticks = 0;

  constructor(
    deps: ProducerDeps,
    options: ProducerOptions,
    relation: string,
    instance: string,
    counters: StageCounters,
  ) {
    this.relation = relation;
    this.controlQuota = new ControlQuota(deps.clock, consumerSays);
    this.#watermarks = new ToldWatermarks(deps, relation);
    this.#deps = deps;
    this.#options = options;
    this.#instance = instance;
    this.#counters = counters;
    this.#topics = relationTopics(relation);
    this.#live = new LiveQueue(deps.transport, this.#topics.live, options, counters);
    this.#statements = new StatementSender(deps.statements, (signed) =>
      this.#publish({ ...this.#base('key-statements'), ...signed }),
    );
    this.#losses = new LossSender(deps.losses ?? new LossSigner(undefined), (declared) => {
      this.#send({ ...this.#base('losses'), ...declared });
    });
  }

  get hasSession(): boolean {
    return this.#session !== undefined;
  }

  /** Hands frames to the transport at once, unless one message is still on its way: then they share the next. */
  forward(frames: readonly EncodedFrame[]): void {
    const session = this.#session;
    if (session === undefined) return;
    for (const frame of frames) {
      const { stream, epoch, seq } = frame.header;
      if (!this.#mayHave(session, stream)) continue;
      if (seq === 1) this.#statements.sendNow([{ stream, epoch }]);
      this.#noteHead(stream, epoch, seq);
      this.#counters.accepted += 1;
      this.#live.push(stream.vm, frame.bytes);
    }
    this.#live.flush();
  }

  /** See {@link Producer.committed}. */
  committed(frames: readonly EncodedFrame[], wasForwarded: (frame: EncodedFrame) => boolean): void {
    const session = this.#session;
    if (session === undefined) return;
    for (const frame of frames) {
      const { stream, epoch, seq } = frame.header;
      if (!this.#mayHave(session, stream)) continue;
      if (seq === 1 && !wasForwarded(frame)) this.#statements.sendNow([{ stream, epoch }]);
      this.#noteHead(stream, epoch, seq);
      if (!wasForwarded(frame)) this.#available.add(stream, epoch, seq);
    }
    this.#offerSoon();
  }

  /** Tells of epochs whose keys are known only now. */
  state(epochs: readonly StatedEpoch[]): void {
    const session = this.#session;
    if (session === undefined) return;
    this.#statements.sendNow(epochs.filter(({ stream }) => this.#mayHave(session, stream)));
  }

  /** Tells what is lost, as soon as it is. */
  declareLost(claims: readonly LossClaim[]): void {
    const session = this.#session;
    if (session === undefined) return;
    this.#losses.declare(claims.filter(({ stream }) => this.#mayHave(session, stream)));
  }

  /** Tells the keys of all epochs in the log, again. */
  stateAll(): void {
    const session = this.#session;
    if (session !== undefined) this.#stateAll(this.#epochsFor(session));
  }

  /** Tells the keys and heads of all epochs in the log, again. */
  announceAll(): void {
    if (this.#session !== undefined) this.#announceAll(this.#session);
  }

  /** Announces heads (also none: that is the sign of life) and makes watermarks durable. */
  tick(): void {
    this.#watermarks.write();
    if (this.#session === undefined || !this.#deps.transport.isConnected) return;
    this.#ticks += 1;
    if (this.#ticks % completeAnnouncementEvery === 0) this.#announceAll(this.#session);
    else this.#announceMoved();
  }

  end(): void {
    this.#watermarks.write();
    this.#live.clear();
    this.#statements.clear();
    this.#endSession();
  }

  onMessage(message: UpstreamMessage): void {
    if (message.kind === 'subscribe') {
      this.#subscribe(message);
      return;
    }
    const session = this.#session;
    if (session === undefined || session.id !== message.session) {
      this.#refuse(message.session, null, 'not-subscribed');
      return;
    }
    switch (message.kind) {
      case 'query':
        this.#query(session, message);
        return;
      case 'credit':
        session.queries.credit(message.request, message.bytes);
        return;
      case 'cancel':
        session.queries.cancel(message.request);
        return;
      case 'stored':
        this.#deps.onStored?.(this.relation, message);
        this.#watermarks.note(message);
        return;
      case 'unsubscribe':
        this.#unsubscribe();
        return;
    }
  }

  #subscribe(message: UpstreamMessage & { readonly kind: 'subscribe' }): void {
    const { streams } = message;
    if (streams !== 'all' && !streams.every((stream) => this.#deps.allows(this.relation, stream))) {
      this.#refuse(message.session, null, 'not-authorized');
      return;
    }
    this.#deps.cursors.add(this.relation);
    this.#moved.clear();
    this.#available.clear();
    this.#live.clear();
    this.#statements.clear();
    this.#endSession();
    this.#session = {
      id: message.session,
      streams: streams === 'all' ? undefined : new Set(streams.map((stream) => streamKey(stream))),
      queries: this.#newQueries(),
    };
    const { announceIntervalMs } = this.#options;
    this.#send({ ...this.#base('subscribed'), instance: this.#instance, announceIntervalMs });
    this.#announceAll(this.#session);
    this.#deps.log.info('consumer-subscribed', { relation: this.relation });
  }

  #unsubscribe(): void {
    this.#endSession();
    this.#statements.clear();
    this.#watermarks.clear();
    this.#deps.cursors.remove(this.relation);
    this.#deps.log.info('consumer-unsubscribed', { relation: this.relation });
  }

  #endSession(): void {
    this.#session?.queries.clear();
    this.#session = undefined;
  }

  #newQueries(): RangeQueries {
    return new RangeQueries(this.#deps.streamLog, this.#options, {
      publish: (request, frames) => this.#publishRange(request, frames),
      end: (request, queried, lost) => {
        const named = this.#losses.answer(queried, lost);
        this.#send({ ...this.#base('range-end'), request, lost: named });
      },
      notSent: (cause) => {
        this.#deps.log.debug('range-not-sent', { relation: this.relation, cause: String(cause) });
      },
    });
  }

  #query(session: Session, message: QueryMessage): void {
    const refusal = this.#mayHave(session, message.stream)
      ? session.queries.add(message)
      : 'not-authorized';
    if (refusal !== undefined) this.#refuse(session.id, message.request, refusal);
  }

  async #publishRange(request: string, frames: readonly LoggedFrame[]): Promise<void> {
    this.#counters.accepted += frames.length;
    const batch = encodeFrameBatch(frames.map(({ bytes }) => bytes));
    try {
      await this.#deps.transport.publish(this.#topics.range(request), batch, 0);
      this.#counters.forwarded += frames.length;
    } catch (cause) {
      this.#counters.failed += frames.length;
      throw cause;
    }
  }

  #announceAll(session: Session): void {
    const epochs = this.#epochsFor(session);
    this.#stateAll(epochs);
    this.#announce(
      epochs.map(({ stream, epoch, lastSeq }) => ({ stream, epoch, throughSeq: lastSeq })),
    );
  }

  /** The newest first: their frames are those that come live. */
  #stateAll(epochs: readonly StatedEpoch[]): void {
    this.#statements.sendAll(epochs.toReversed());
  }

  #epochsFor(session: Session): readonly LogEpoch[] {
    return this.#deps.streamLog
      .epochs()
      .filter(({ stream, lastSeq }) => lastSeq > 0 && this.#mayHave(session, stream));
  }

  #announceMoved(): void {
    const heads = [...this.#moved.values()].map(({ head }) => head);
    for (const [key, moved] of this.#moved) {
      moved.timesLeft -= 1;
      if (moved.timesLeft === 0) this.#moved.delete(key);
    }
    this.#announce(heads);
  }

  #announce(heads: readonly HeadEntry[]): void {
    let fromIndex = 0;
    do {
      const part = heads.slice(fromIndex, fromIndex + controlEntriesMax);
      this.#send({ ...this.#base('heads'), instance: this.#instance, heads: part });
      fromIndex += controlEntriesMax;
    } while (fromIndex < heads.length);
  }

  #mayHave(session: Session, stream: StreamId): boolean {
    if (session.streams !== undefined && !session.streams.has(streamKey(stream))) return false;
    return this.#deps.allows(this.relation, stream);
  }

  #noteHead(stream: StreamId, epoch: Epoch, seq: number): void {
    const key = epochKey(stream, epoch);
    const before = this.#moved.get(key)?.head.throughSeq ?? 0;
    const head = { stream, epoch, throughSeq: Math.max(before, seq) };
    this.#moved.set(key, { head, timesLeft: announcedTimes });
  }

  /** What comes in one go is offered in one message. */
  #offerSoon(): void {
    if (this.#isOfferDue || this.#available.isEmpty) return;
    this.#isOfferDue = true;
    this.#deps.clock.after(offerDelayMs, () => {
      this.#isOfferDue = false;
      if (this.#session === undefined) return;
      for (const ranges of this.#available.take(controlEntriesMax)) {
        this.#send({ ...this.#base('available'), ranges });
      }
    });
  }

  #refuse(session: string, request: string | null, code: QueryRefusal): void {
    this.#counters.failAtOnce();
    this.#send({ ...this.#base('refused'), session, request, code });
  }

  #base<Kind extends DownstreamMessage['kind']>(
    kind: Kind,
  ): { readonly v: typeof controlMessageVersion; readonly session: string; readonly kind: Kind } {
    return { v: controlMessageVersion, session: this.#session?.id ?? 'none', kind };
  }

  #send(message: DownstreamMessage): void {
    void this.#publish(message);
  }

  /**
   * False when it could not be sent; never rejects. Who reads nothing makes us keep no more than `controlBytesMax` for it: what
   * is left out is healed as any lost message is.
   */
  async #publish(message: DownstreamMessage): Promise<boolean> {
    const bytes = encodeControl(message);
    if (this.#controlBytes > this.#options.controlBytesMax) {
      this.#leftOut(message);
      return false;
    }
    this.#controlBytes += bytes.length;
    try {
      await this.#deps.transport.publish(this.#topics.downControl, bytes, 1);
      return true;
    } catch (cause) {
      this.#deps.log.debug('control-message-not-sent', {
        relation: this.relation,
        kind: message.kind,
        cause: String(cause),
      });
      return false;
    } finally {
      this.#controlBytes -= bytes.length;
    }
  }

  #leftOut({ kind }: DownstreamMessage): void {
    this.#deps.log.warn('consumer-slow', { relation: this.relation, kind });
  }
}
