import type { Clock } from '../../common/runtime/clock.ts';
import type { Random } from '../../common/runtime/random.ts';
import { controlMessageVersion, type UpstreamMessage } from '../../common/wire/control-message.ts';
import { RangeSet } from '../range-set.ts';
import { CreditWindow } from './credit-window.ts';
import type { EpochState } from './epoch-state.ts';

interface Request {
  readonly id: string;
  readonly state: EpochState;
  readonly fromSeq: number;
  readonly throughSeq: number;
  readonly missingBefore: number;
  progressedAtMs: number;
  arrivedBytes: number;
  grantedBytes: number;
  /** When as many bytes have arrived as were granted then, it tells how long they took. */
  mark: { readonly atMs: number; readonly throughBytes: number };
}

type RequestMessage = Extract<UpstreamMessage, { readonly kind: 'query' | 'credit' | 'cancel' }>;
/** The consumer knows the session and adds it. */
export type UnaddressedMessage = RequestMessage extends infer Message
  ? Message extends RequestMessage
    ? Omit<Message, 'session'>
    : never
  : never;

const requestIdBytes = 6;
const fruitlessDelayMs = 100;
const fruitlessDelayMsMax = 10_000;
/** Credit goes back once this part of the window is free. */
const creditGrantRatio = 0.25;

/** The queries that a consumer has under way: at most `queriesMax`, never two for the same frames of an epoch. */
export class RangeRequests {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #options: {
    readonly queriesMax: number;
    readonly creditBytes: number;
    readonly queryTimeoutMs: number;
  };
  readonly #send: (message: UnaddressedMessage) => void;
  readonly #requests = new Map<string, Request>();
  readonly #window: CreditWindow;

  constructor(
    deps: { readonly clock: Clock; readonly random: Random },
    options: {
      readonly queriesMax: number;
      readonly creditBytes: number;
      readonly queryTimeoutMs: number;
    },
    send: (message: UnaddressedMessage) => void,
  ) {
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#options = options;
    this.#send = send;
    this.#window = new CreditWindow(options.creditBytes);
  }

  /** Asks for what the epoch lacks and nobody is asked for yet. */
  query(state: EpochState): void {
    if (this.#requests.size >= this.#options.queriesMax) return;
    if (this.#clock.monotonicMs() < state.queryNotBeforeMs) return;
    const gaps = state.gaps();
    if (gaps.length === 0) return;
    const asked = new RangeSet(
      [...this.#requests.values()].filter((request) => request.state === state),
    );
    for (const gap of gaps) {
      for (const range of asked.gaps(gap.fromSeq, gap.throughSeq)) {
        if (this.#requests.size >= this.#options.queriesMax) return;
        this.#ask(state, range.fromSeq, range.throughSeq);
      }
    }
  }

  /** Frames of a request arrived. */
  progressed(requestId: string, bytes: number): void {
    const request = this.#requests.get(requestId);
    if (request === undefined) return;
    const nowMs = this.#clock.monotonicMs();
    request.progressedAtMs = nowMs;
    request.arrivedBytes += bytes;
    if (request.arrivedBytes < request.mark.throughBytes) return;
    this.#window.arrived(nowMs - request.mark.atMs);
    request.mark = { atMs: nowMs, throughBytes: Number.POSITIVE_INFINITY };
  }

  /** Lets the producers go on; called when the store has taken what arrived. */
  grantCredit(): void {
    for (const request of this.#requests.values()) {
      const underWayBytes = request.grantedBytes - request.arrivedBytes;
      const bytes = Math.floor(this.#window.bytes - underWayBytes);
      if (bytes < this.#window.bytes * creditGrantRatio) continue;
      request.grantedBytes += bytes;
      if (request.mark.throughBytes === Number.POSITIVE_INFINITY) {
        const atMs = this.#clock.monotonicMs();
        request.mark = { atMs, throughBytes: request.grantedBytes };
      }
      this.#send({ v: controlMessageVersion, kind: 'credit', request: request.id, bytes });
    }
  }

  /** The producer is through with a request; returns whose it was. */
  end(requestId: string): EpochState | undefined {
    const request = this.#requests.get(requestId);
    if (request === undefined) return undefined;
    this.#requests.delete(requestId);
    this.#noteOutcome(request);
    return request.state;
  }

  dropTimedOut(): void {
    const oldestMs = this.#clock.monotonicMs() - this.#options.queryTimeoutMs;
    for (const request of this.#requests.values()) {
      if (request.progressedAtMs > oldestMs) continue;
      this.#requests.delete(request.id);
      this.#noteOutcome(request);
      this.#send({ v: controlMessageVersion, kind: 'cancel', request: request.id });
    }
  }

  clear(): void {
    this.#requests.clear();
    this.#window.reset();
  }

  #ask(state: EpochState, fromSeq: number, throughSeq: number): void {
    const id = Buffer.from(this.#random.bytes(requestIdBytes)).toString('hex');
    const nowMs = this.#clock.monotonicMs();
    const creditBytes = Math.floor(this.#window.bytes);
    this.#requests.set(id, {
      id,
      state,
      fromSeq,
      throughSeq,
      missingBefore: throughSeq - fromSeq + 1,
      progressedAtMs: nowMs,
      arrivedBytes: 0,
      grantedBytes: creditBytes,
      mark: { atMs: nowMs, throughBytes: creditBytes },
    });
    const { stream, epoch } = state;
    this.#send({
      v: controlMessageVersion,
      kind: 'query',
      request: id,
      stream,
      epoch,
      range: { fromSeq, throughSeq },
      creditBytes,
    });
  }

  /** After a query that brought nothing the next one waits, twice as long each time. */
  #noteOutcome({ state, fromSeq, throughSeq, missingBefore }: Request): void {
    const missing = state.received
      .gaps(fromSeq, throughSeq)
      .reduce((sum, gap) => sum + gap.throughSeq - gap.fromSeq + 1, 0);
    if (missing < missingBefore) {
      state.fruitlessQueries = 0;
      return;
    }
    const delayMs = Math.min(fruitlessDelayMs * 2 ** state.fruitlessQueries, fruitlessDelayMsMax);
    state.fruitlessQueries = Math.min(state.fruitlessQueries + 1, 16);
    state.queryNotBeforeMs = this.#clock.monotonicMs() + delayMs;
  }
}
