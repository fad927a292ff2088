import type { Cancel } from '../../common/runtime/clock.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { DeclaredLosses } from '../../common/signing/loss-signer.ts';
import {
  controlEntriesMax,
  controlMessageVersion,
  decodeDownstream,
  encodeControl,
  type AvailableMessage,
  type DownstreamMessage,
  type HeadEntry,
  type KeyStatementsMessage,
  type LossesMessage,
  type UpstreamMessage,
} from '../../common/wire/control-message.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import { lossReasonOf } from '../../common/wire/loss-reason.ts';
import { relationTopics, type RelationTopics } from '../mqtt/topics.ts';
import { ControlQuota, producerSays } from '../quota/control-quota.ts';
import type { SeqRange } from '../range-set.ts';
import type { ConsumerDeps, ConsumerOptions, Watermark } from './consumer-options.ts';
import type { EpochState } from './epoch-state.ts';
import { FrameIntake } from './frame-intake.ts';
import { KnownEpochs } from './known-epochs.ts';
import { RangeRequests } from './range-requests.ts';
import { WatermarkReports } from './watermark-reports.ts';

const sessionBytes = 8;
const announceIntervalUnknownMs = 1_000;
/** So many announcing intervals without a word mean that the producer does not know us any more. */
const silentIntervalsMax = 3;

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
  readonly #controlQuota: ControlQuota;
  readonly #intake: FrameIntake;
  readonly #reports: WatermarkReports;
  #cancels: Cancel[] = [];
  #session = '';
  #instance: string | undefined;
  #announceIntervalMs = announceIntervalUnknownMs;
  #heardAtMs = 0;
  /** From a subscription to the end of its first announcement, which may come in several messages. */
  #isFirstAnnouncement = false;

  constructor(deps: ConsumerDeps, options: ConsumerOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#topics = relationTopics(options.relation);
    this.#controlQuota = new ControlQuota(deps.clock, producerSays);
    this.#epochs = new KnownEpochs(deps.sink, options.epochsMax);
    this.#reports = new WatermarkReports(deps.clock, options, this.#epochs.unreported, {
      isLive: () => this.isLive,
      send: (by, watermarks) => {
        this.#send({ ...this.#base('stored'), by, watermarks: [...watermarks] });
      },
    });
    const parts = { epochs: this.#epochs, counters: this.counters };
    this.#intake = new FrameIntake(deps, options, parts, {
      query: (state) => {
        this.#query(state);
      },
      stored: (state) => {
        this.#reports.noteStored(state);
      },
      settled: () => {
        this.#grantCredit();
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
        this.#noteHeard();
        this.#intake.takeLive(payload);
      }),
      await transport.subscribe(this.#topics.rangeFilter, 0, (topic, payload) => {
        const request = this.#topics.requestOf(topic);
        if (request !== undefined) this.#onRange(payload, request);
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
    this.#reports.stop();
    await this.#intake.drain();
    this.#reports.report();
    this.#instance = undefined;
  }

  /** A relay passes on how far the final reader has what came from here. */
  reportFinal(watermark: Watermark): void {
    this.#reports.noteFinal(watermark);
  }

  /** A relay asks again for what it had and gave up. */
  fetchAgain(stream: StreamId, epoch: Epoch, ranges: readonly SeqRange[]): void {
    const state = this.#epochs.of(stream, epoch);
    for (const range of ranges) state.noteEvicted(range);
    this.#query(state);
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
    this.#epochs.doubtLost();
    const { streams } = this.#options;
    this.#send({ ...this.#base('subscribe'), streams: streams === 'all' ? 'all' : [...streams] });
  }

  #disconnected(): void {
    this.#instance = undefined;
    this.#requests.clear();
  }

  #onControl(payload: Uint8Array): void {
    if (!this.#controlQuota.take(payload)) {
      this.counters.failAtOnce();
      this.#deps.log.warn('control-quota-exceeded', { relation: this.#options.relation });
      return;
    }
    const decoded = decodeDownstream(payload);
    if (!decoded.ok) {
      this.counters.failAtOnce();
      const { relation } = this.#options;
      const { code, rule } = decoded;
      this.#deps.quotas?.chargeNonsense(payload.length);
      this.#deps.log.warn('control-message-refused', { relation, code, rule });
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
      case 'losses':
        this.#onLosses(message);
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
      if (!this.#intake.accepts(stream, epoch)) continue;
      const state = this.#epochs.of(stream, epoch);
      state.announce(throughSeq, fromMs);
      this.#query(state);
    }
    if (heads.length < controlEntriesMax) this.#isFirstAnnouncement = false;
  }

  /** What was asked for in vain, or declared lost, may be there now. */
  #onAvailable({ stream, epoch, range }: AvailableMessage['ranges'][number]): void {
    if (!this.#intake.accepts(stream, epoch)) return;
    const state = this.#epochs.of(stream, epoch);
    state.announce(range.throughSeq, this.#deps.clock.monotonicMs());
    state.doubtLost(range);
    this.#queryAgain(state);
  }

  /** Frames that came before the statement of their key were not taken: they are asked for at once, not when it is due. */
  #onStatements({ certificate, statements }: KeyStatementsMessage): void {
    const own = statements.filter(({ stream, epoch }) => this.#intake.accepts(stream, epoch));
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
    const { stream, epoch } = state;
    const declaredAtUs = this.#deps.clock.wallUs();
    // What was declared with a signature before is no gap any more.
    const losses = message.lost.flatMap(({ fromSeq, throughSeq, reason: text }) => {
      const gaps = state.received.gaps(fromSeq, throughSeq);
      const rest = { stream, epoch, reason: lossReasonOf(text), declaredAtUs, signature: null };
      return gaps.map((gap) => ({ ...rest, ...gap }));
    });
    if (losses.length > 0) this.#takeLosses({ certificate: null, losses });
    if (this.#requests.isSomeoneWaiting) this.#takeTurns([state]);
    else this.#query(state);
  }

  #grantCredit(): void {
    const ended = this.#requests.grantCredit();
    if (ended.length > 0) this.#takeTurns(ended);
  }

  /** Those whose queries ended come after all others that lack something. */
  #takeTurns(ended: readonly EpochState[]): void {
    const { incomplete } = this.#epochs;
    for (const state of ended) {
      if (incomplete.delete(state)) incomplete.add(state);
    }
    this.#queryIncomplete();
  }

  #queryIncomplete(): void {
    this.#requests.beginTurn();
    for (const state of this.#epochs.incomplete) {
      this.#query(state);
      if (this.#requests.isSomeoneWaiting) return;
    }
  }

  #onLosses({ certificate, losses }: LossesMessage): void {
    const own = losses.filter((loss) => {
      if (!this.#intake.accepts(loss.stream, loss.epoch)) return false;
      const { received } = this.#epochs.of(loss.stream, loss.epoch);
      return received.gaps(loss.fromSeq, loss.throughSeq).length > 0;
    });
    this.#takeLosses({ certificate, losses: own });
  }

  /** A declaration for frames that are here is ignored. */
  #takeLosses(declared: DeclaredLosses): void {
    const { relation } = this.#options;
    const judged =
      this.#deps.losses?.judge(declared) ??
      declared.losses.map((loss) => ({ ...loss, relation, proof: null }));
    for (const { stream, epoch, fromSeq, throughSeq, reason, declaredAtUs, proof } of judged) {
      const state = this.#epochs.of(stream, epoch);
      const lost = { epoch, reason, declaredAtUs, declaredBy: relation, proof };
      const gaps = state.received.gaps(fromSeq, throughSeq);
      for (const gap of gaps) this.#intake.declareLost(state, { ...lost, ...gap });
      // An answer as good as frames: a relay looks for what it evicted piece by piece.
      if (gaps.length > 0) this.#queryAgain(state);
    }
  }

  /** Before the answer to a subscription nothing else is a sign that it comes: it may be lost. */
  #noteHeard(): void {
    if (this.isLive) this.#heardAtMs = this.#deps.clock.monotonicMs();
  }

  #onRange(payload: Uint8Array, request: string): void {
    this.#noteHeard();
    const range = this.#intake.takeRange(payload, this.#requests.underWayBytes(request));
    if (range === undefined) return;
    this.#requests.progressed(request, range.bytes);
    // Otherwise credit goes back when they are stored; of what was here already nothing will be.
    const mayGoOn = range.isNew ? this.#intake.keepsUp : this.#intake.hasRoom;
    if (mayGoOn) this.#grantCredit();
  }

  #query(state: EpochState): void {
    state.settle(this.#deps.clock.monotonicMs());
    if (state.isComplete) this.#epochs.incomplete.delete(state);
    else this.#epochs.incomplete.add(state);
    if (this.#instance === undefined) return;
    if (this.#intake.hasRoom) this.#requests.query(state);
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
    // Credit that a quota held back.
    if (this.#intake.hasRoom) this.#grantCredit();
    this.#requests.dropTimedOut();
    this.#queryIncomplete();
    this.#reports.catchUp();
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
