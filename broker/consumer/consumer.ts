import type { Cancel } from '../../common/runtime/clock.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import {
  controlEntriesMax,
  controlMessageVersion,
  decodeDownstream,
  encodeControl,
  type AvailableMessage,
  type DownstreamMessage,
  type HeadEntry,
  type KeyStatementsMessage,
  type UpstreamMessage,
} from '../../common/wire/control-message.ts';
import { decodeFrameBatch } from '../../common/wire/frame-batch.ts';
import { decodeFrameHeader } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import { relationTopics, type RelationTopics } from '../mqtt/topics.ts';
import type { FrameInspector } from '../ports.ts';
import { epochKey, streamKey } from '../stream-key.ts';
import type { ConsumerDeps, ConsumerOptions, Watermark } from './consumer-options.ts';
import type { EpochState } from './epoch-state.ts';
import { KnownEpochs } from './known-epochs.ts';
import { RangeRequests } from './range-requests.ts';
import { SinkQueue } from './sink-queue.ts';

const sessionBytes = 8;
const announceIntervalUnknownMs = 1_000;
/** So many announcing intervals without a word mean that the producer does not know us any more. */
const silentIntervalsMax = 3;
/** A frame that breaks the hash chain is fetched anew this many times, then it is recorded as lost. */
const chainRefusalsMax = 3;
const brokenChainReason = 'the frame contradicts its neighbours’ hashes';

/**
 * The GMA consumer of one producer: takes live frames, sees gaps, asks for what it lacks after starting, reconnecting or
 * losing, and hands each frame to its sink once. Live frames may overtake the back-fill. What the sink has made durable
 * is acknowledged upstream.
 *
 *   disconnected --connection--> subscribing --subscribed--> live  (heads: gaps -> queries; live: gaps -> queries)
 *        ^                          ^------ silence, refusal, other instance ------'
 *        '----------------------------- connection lost -----------------'
 */
export class Consumer implements Service {
  readonly name = 'consumer';
  /** Frames; `dropped` are duplicates and those that came faster than the sink: nothing of it is lost. */
  readonly counters = new StageCounters();
  readonly #deps: ConsumerDeps;
  readonly #options: ConsumerOptions;
  readonly #topics: RelationTopics;
  readonly #epochs: KnownEpochs;
  readonly #requests: RangeRequests;
  readonly #storing: SinkQueue;
  /** Told upstream with the next report. */
  readonly #finals = new Map<string, Watermark>();
  #cancels: Cancel[] = [];
  #cancelReport: Cancel = () => {};
  #session = '';
  #instance: string | undefined;
  #announceIntervalMs = announceIntervalUnknownMs;
  #heardAtMs = 0;
  #isReportDue = false;
  /** From a subscription to the end of its first announcement, which may come in several messages. */
  #isFirstAnnouncement = false;

  constructor(deps: ConsumerDeps, options: ConsumerOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#topics = relationTopics(options.relation);
    this.#epochs = new KnownEpochs(deps.sink, options.epochsMax);
    this.#storing = new SinkQueue(deps.sink, {
      stored: (frames) => {
        this.#stored(frames);
      },
      failed: (frames, cause) => {
        this.#notStored(frames, cause);
      },
      settled: () => {
        this.#requests.grantCredit();
      },
    });
    this.#requests = new RangeRequests(deps, options, (message) => {
      this.#send({ ...message, session: this.#session });
    });
  }

  /** True while the producer answers: the newest frame here is the newest there, but for what is under way. */
  get isLive(): boolean {
    return this.#instance !== undefined;
  }

  async start(): Promise<void> {
    const { transport, clock } = this.#deps;
    this.#cancels.push(
      await transport.subscribe(this.#topics.downControl, 1, (_topic, payload) => {
        this.#onControl(payload);
      }),
      await transport.subscribe(this.#topics.live, 0, (_topic, payload) => {
        this.#onFrames(payload, undefined);
      }),
      await transport.subscribe(this.#topics.rangeFilter, 0, (topic, payload) => {
        const request = this.#topics.requestOf(topic);
        if (request !== undefined) this.#onFrames(payload, request);
      }),
      transport.onConnection((isConnected) => {
        if (isConnected) this.#subscribe();
        else this.#disconnected();
      }),
      clock.every(this.#options.checkIntervalMs, () => {
        this.#check();
      }),
    );
    if (transport.isConnected) this.#subscribe();
  }

  /** Waits for what the sink has in hand and tells the producer about it. */
  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    this.#cancelReport();
    await this.#storing.drain();
    this.#report();
    this.#instance = undefined;
  }

  /** A relay passes on how far the final reader has what came from here. */
  reportFinal(watermark: Watermark): void {
    this.#finals.set(epochKey(watermark.stream, watermark.epoch), watermark);
    this.#reportSoon();
  }

  /** Ends the durable cursor at the producer: it keeps nothing for us any longer. */
  unsubscribe(): void {
    this.#send({ ...this.#base('unsubscribe') });
  }

  #subscribe(): void {
    this.#session = Buffer.from(this.#deps.random.bytes(sessionBytes)).toString('hex');
    this.#instance = undefined;
    this.#heardAtMs = this.#deps.clock.monotonicMs();
    this.#requests.clear();
    const { streams } = this.#options;
    this.#send({ ...this.#base('subscribe'), streams: streams === 'all' ? 'all' : [...streams] });
  }

  #disconnected(): void {
    this.#instance = undefined;
    this.#requests.clear();
  }

  #onControl(payload: Uint8Array): void {
    const decoded = decodeDownstream(payload);
    if (!decoded.ok) {
      this.counters.failAtOnce();
      this.#deps.log.warn('control-message-refused', { code: decoded.code, rule: decoded.rule });
      return;
    }
    if (decoded.message.session === this.#session) this.#onMessage(decoded.message);
  }

  #onMessage(message: DownstreamMessage): void {
    this.#noteHeard();
    switch (message.kind) {
      case 'subscribed':
        this.#instance = message.instance;
        this.#noteHeard();
        this.#isFirstAnnouncement = true;
        this.#announceIntervalMs = message.announceIntervalMs;
        this.#deps.log.info('subscribed', { relation: this.#options.relation });
        for (const watermark of this.#deps.relaying?.finalWatermarks() ?? []) {
          this.reportFinal(watermark);
        }
        return;
      case 'refused':
        this.#onRefused(message);
        return;
      case 'heads':
        this.#onHeads(message.heads);
        return;
      case 'range-end':
        this.#onRangeEnd(message);
        return;
      case 'available':
        for (const offer of message.ranges) this.#onAvailable(offer);
        return;
      case 'key-statements':
        this.#onStatements(message);
        return;
    }
  }

  /**
   * Announcements overtake live frames, which get some time to come by themselves. Only what there was before a
   * subscription, told in its first announcement, is asked for at once.
   */
  #onHeads(heads: readonly HeadEntry[]): void {
    const graceMs = this.#isFirstAnnouncement ? 0 : this.#options.announcedGraceMs;
    const fromMs = this.#deps.clock.monotonicMs() + graceMs;
    for (const { stream, epoch, throughSeq } of heads) {
      if (!this.#accepts(stream, epoch)) continue;
      const state = this.#epochs.of(stream, epoch);
      state.announce(throughSeq, fromMs);
      this.#query(state);
    }
    if (heads.length < controlEntriesMax) this.#isFirstAnnouncement = false;
  }

  /** What was asked for in vain may be there now. */
  #onAvailable({ stream, epoch, range }: AvailableMessage['ranges'][number]): void {
    if (!this.#accepts(stream, epoch)) return;
    const state = this.#epochs.of(stream, epoch);
    state.announce(range.throughSeq, this.#deps.clock.monotonicMs());
    this.#queryAgain(state);
  }

  /** Frames that came before the statement of their key were not taken: they are asked for at once, not when it is due. */
  #onStatements({ certificate, statements }: KeyStatementsMessage): void {
    const own = statements.filter(({ stream, epoch }) => this.#accepts(stream, epoch));
    const claims = this.#deps.statements?.take({ certificate, statements: own }) ?? [];
    if (claims.length === 0) return;
    this.#deps.relaying?.stated(claims);
    for (const { stream, epoch } of claims) {
      const state = this.#epochs.known(stream, epoch);
      if (state !== undefined) this.#queryAgain(state);
    }
  }

  #queryAgain(state: EpochState): void {
    state.queryNotBeforeMs = 0;
    state.fruitlessQueries = 0;
    this.#query(state);
  }

  /** A relay takes an epoch from one neighbour only; what another offers is a loop, or not its own. */
  #accepts(stream: StreamId, epoch: Epoch): boolean {
    const { relaying, log } = this.#deps;
    if (relaying === undefined || relaying.accepts(stream, epoch)) return true;
    this.counters.failAtOnce();
    const { relation } = this.#options;
    log.warn('already-relayed', { relation, stream: streamKey(stream), epoch: epoch.number });
    return false;
  }

  #onRefused(message: DownstreamMessage & { readonly kind: 'refused' }): void {
    if (message.request !== null) {
      this.#requests.end(message.request);
      return;
    }
    if (message.code === 'not-subscribed') {
      this.#subscribe();
      return;
    }
    this.#deps.log.error('subscription-refused', {
      relation: this.#options.relation,
      code: message.code,
    });
  }

  #onRangeEnd(message: DownstreamMessage & { readonly kind: 'range-end' }): void {
    // Frames of the range that came just before are still pending: take them into account first.
    const state = this.#requests.end(message.request);
    if (state === undefined) return;
    for (const lost of message.lost) {
      for (const gap of state.received.gaps(lost.fromSeq, lost.throughSeq)) {
        this.#declareLost(state, { ...gap, reason: lost.reason });
      }
    }
    this.#query(state);
  }

  #declareLost(
    state: EpochState,
    lost: { readonly fromSeq: number; readonly throughSeq: number; readonly reason: string },
  ): void {
    const { stream, epoch } = state;
    state.noteLost(lost);
    this.#storing.track(this.#recordLoss(state, lost));
    this.#deps.log.warn('frames-lost', {
      stream: streamKey(stream),
      epoch: epoch.number,
      ...lost,
    });
  }

  async #recordLoss(
    state: EpochState,
    lost: { readonly fromSeq: number; readonly throughSeq: number; readonly reason: string },
  ): Promise<void> {
    try {
      await this.#deps.sink.declareLost(state.stream, { epoch: state.epoch, ...lost });
      state.stored.addRange(lost.fromSeq, lost.throughSeq);
      this.#noteStored(state);
    } catch (cause) {
      state.received.deleteRange(lost.fromSeq, lost.throughSeq);
      this.#epochs.incomplete.add(state);
      this.#deps.log.error('loss-not-recorded', { cause: String(cause) });
    }
  }

  /** Before the answer to a subscription nothing else is a sign that it comes: it may be lost. */
  #noteHeard(): void {
    if (this.isLive) this.#heardAtMs = this.#deps.clock.monotonicMs();
  }

  #onFrames(payload: Uint8Array, request: string | undefined): void {
    this.#noteHeard();
    const batch = decodeFrameBatch(payload);
    if (!batch.ok) {
      this.#refuseBytes(batch.rule);
      return;
    }
    const taken: EncodedFrame[] = [];
    for (const bytes of batch.frames) {
      const decoded = decodeFrameHeader(bytes);
      if (!decoded.ok) {
        this.#refuseBytes(decoded.problem.rule);
        continue;
      }
      const frame = { header: decoded.header, bytes };
      if (this.#take(frame)) taken.push(frame);
    }
    if (request === undefined && taken.length > 0) this.#deps.relaying?.forward(taken);
    if (request === undefined) return;
    const frameBytes = batch.frames.reduce((sum, bytes) => sum + bytes.length, 0);
    this.#requests.progressed(request, frameBytes);
    // Otherwise credit goes back when they are stored; of what was here already nothing will be.
    const hasRoom = this.#storing.bytes <= this.#options.storingBytesMax / 2;
    if (taken.length === 0 && hasRoom) this.#requests.grantCredit();
  }

  #refuseBytes(rule: string): void {
    this.counters.failAtOnce();
    this.#deps.log.warn('frame-refused', { relation: this.#options.relation, rule });
  }

  /** Returns whether the frame is new, and on its way into the sink. */
  #take(frame: EncodedFrame): boolean {
    const { inspector } = this.#deps;
    const { stream, epoch, seq } = frame.header;
    if (!this.#accepts(stream, epoch)) return false;
    if (inspector !== undefined && !this.#passes(frame, inspector)) return false;
    const state = this.#epochs.of(stream, epoch);
    this.counters.accepted += 1;
    const isFull = this.#storing.bytes + frame.bytes.length > this.#options.storingBytesMax;
    if (state.isDuplicate(seq) || (isFull && this.#storing.bytes > 0)) {
      state.headSeq = Math.max(state.headSeq, seq);
      this.#epochs.incomplete.add(state);
      this.counters.dropped += 1;
      return false;
    }
    if (!state.take(frame)) {
      this.#chainBroken(state, seq);
      return false;
    }
    this.#storing.push(frame);
    if (state.received.contiguousThroughSeq < state.headSeq) this.#query(state);
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
    this.counters.failAtOnce();
    return false;
  }

  #chainBroken(state: EpochState, seq: number): void {
    this.counters.failed += 1;
    const refusals = state.refusalsOf(seq);
    this.#deps.log.error('hash-chain-broken', {
      stream: streamKey(state.stream),
      epoch: state.epoch.number,
      seq,
      refusals,
    });
    if (refusals < chainRefusalsMax) this.#query(state);
    else this.#declareLost(state, { fromSeq: seq, throughSeq: seq, reason: brokenChainReason });
  }

  #stored(frames: readonly EncodedFrame[]): void {
    for (const { header } of frames) {
      const state = this.#epochs.of(header.stream, header.epoch);
      state.stored.add(header.seq);
      this.#noteStored(state);
    }
    this.counters.forwarded += frames.length;
    const newest = frames.at(-1);
    if (newest === undefined) return;
    this.counters.lagMs = (this.#deps.clock.wallUs() - newest.header.producedAtUs) / 1_000;
  }

  #notStored(frames: readonly EncodedFrame[], cause: unknown): void {
    this.counters.failed += frames.length;
    this.#deps.log.error('frames-not-stored', { frameCount: frames.length, cause: String(cause) });
    for (const { header } of frames) {
      const state = this.#epochs.of(header.stream, header.epoch);
      state.forget([header.seq]);
      this.#epochs.incomplete.add(state);
    }
  }

  #query(state: EpochState): void {
    state.settle(this.#deps.clock.monotonicMs());
    if (state.isComplete) this.#epochs.incomplete.delete(state);
    else this.#epochs.incomplete.add(state);
    if (this.#instance === undefined) return;
    if (this.#storing.bytes > this.#options.storingBytesMax / 2) return;
    this.#requests.query(state);
  }

  #noteStored(state: EpochState): void {
    if (state.watermark <= state.reportedThroughSeq) return;
    this.#epochs.unreported.add(state);
    this.#reportSoon();
  }

  #reportSoon(): void {
    if (this.#isReportDue) return;
    this.#isReportDue = true;
    this.#cancelReport = this.#deps.clock.after(this.#options.reportIntervalMs, () => {
      this.#report();
    });
  }

  #report(): void {
    this.#isReportDue = false;
    if (this.#instance === undefined) return;
    this.#reportFinals();
    if (this.#epochs.unreported.size === 0) return;
    const states = [...this.#epochs.unreported].slice(0, controlEntriesMax);
    const watermarks = states.map((state) => {
      this.#epochs.unreported.delete(state);
      state.reportedThroughSeq = state.watermark;
      return { stream: state.stream, epoch: state.epoch, throughSeq: state.watermark };
    });
    this.#send({ ...this.#base('stored'), by: this.#options.storedBy, watermarks });
    const next = this.#epochs.unreported.values().next().value;
    if (next !== undefined) this.#noteStored(next);
  }

  #reportFinals(): void {
    const finals = [...this.#finals].slice(0, controlEntriesMax);
    if (finals.length === 0) return;
    for (const [key] of finals) this.#finals.delete(key);
    const watermarks = finals.map(([, { stream, epoch, throughSeq }]) => ({
      stream,
      epoch,
      throughSeq,
    }));
    this.#send({ ...this.#base('stored'), by: 'final-reader', watermarks });
    if (this.#finals.size > 0) this.#reportSoon();
  }

  #check(): void {
    if (!this.#deps.transport.isConnected) return;
    const silenceMs = this.#deps.clock.monotonicMs() - this.#heardAtMs;
    const { silenceMsMin } = this.#options;
    if (silenceMs > Math.max(this.#announceIntervalMs * silentIntervalsMax, silenceMsMin)) {
      this.#deps.log.warn('producer-silent', { relation: this.#options.relation, silenceMs });
      this.#subscribe();
      return;
    }
    this.#requests.dropTimedOut();
    for (const state of this.#epochs.incomplete) this.#query(state);
    if (this.#epochs.unreported.size > 0 && !this.#isReportDue) this.#report();
  }

  #base<Kind extends UpstreamMessage['kind']>(
    kind: Kind,
  ): { readonly v: typeof controlMessageVersion; readonly session: string; readonly kind: Kind } {
    return { v: controlMessageVersion, session: this.#session, kind };
  }

  #send(message: UpstreamMessage): void {
    this.#deps.transport
      .publish(this.#topics.upControl, encodeControl(message), 1)
      .catch((cause: unknown) => {
        this.#deps.log.debug('control-message-not-sent', {
          kind: message.kind,
          cause: String(cause),
        });
      });
  }
}
