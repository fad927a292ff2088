import type { Clock } from '../../common/runtime/clock.ts';
import type { Random } from '../../common/runtime/random.ts';
import { controlMessageVersion, type UpstreamMessage } from '../../common/wire/control-message.ts';
import type { IntakeQuotas } from '../quota/byte-quotas.ts';
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
/** Less than this is no use of a quota: it is waited for. */
const grantBytesMin = 16 * 1_024;
/** When others wait for their turn, a query that has had as much ends, and its rest is asked for after theirs. */
const bytesPerTurnMax = 4 * 1_024 * 1_024;

/**
 * The queries that a consumer has under way: at most `queriesMax`, never two for the same frames of an epoch. A VM or
 * neighbour that has used up its quota is asked for less, later, and keeps no other waiting meanwhile.
 */
export class RangeRequests {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #quotas: IntakeQuotas | undefined;
  readonly #options: {
    readonly queriesMax: number;
    readonly creditBytes: number;
    readonly queryTimeoutMs: number;
  };
  readonly #send: (message: UnaddressedMessage) => void;
  readonly #requests = new Map<string, Request>();
  readonly #window: CreditWindow;
  #isSomeoneWaiting = false;

  constructor(
    deps: { readonly clock: Clock; readonly random: Random; readonly quotas?: IntakeQuotas },
    options: {
      readonly queriesMax: number;
      readonly creditBytes: number;
      readonly queryTimeoutMs: number;
    },
    send: (message: UnaddressedMessage) => void,
  ) {
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#quotas = deps.quotas;
    this.#options = options;
    this.#send = send;
    this.#window = new CreditWindow(options.creditBytes);
  }

  get isFull(): boolean {
    return this.#requests.size >= this.#options.queriesMax;
  }

  /** Some epoch was not asked for since {@link beginTurn}, as all queries were under way. */
  get isSomeoneWaiting(): boolean {
    return this.#isSomeoneWaiting;
  }

  /** All that is incomplete is looked at again. */
  beginTurn(): void {
    this.#isSomeoneWaiting = false;
  }

  /** Asks for what the epoch lacks and nobody is asked for yet. */
  query(state: EpochState): void {
    if (this.#clock.monotonicMs() < state.queryNotBeforeMs) return;
    if (state.hasAll) return;
    if (this.isFull) {
      this.#isSomeoneWaiting = true;
      return;
    }
    const gaps = state.gaps();
    const asked = new RangeSet(
      [...this.#requests.values()].filter((request) => request.state === state),
    );
    for (const gap of gaps) {
      for (const range of asked.gaps(gap.fromSeq, gap.throughSeq)) {
        if (this.isFull || !this.#ask(state, range.fromSeq, range.throughSeq)) return;
      }
    }
  }

  /** Bytes that may still come for a request without counting anew. */
  underWayBytes(requestId: string): number {
    const request = this.#requests.get(requestId);
    return request === undefined ? 0 : Math.max(0, underWayOf(request));
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

  /**
   * Lets the producers go on; called when the store has taken what arrived. Returns the epochs whose queries ended, as
   * their quota is used up or others wait for their turn.
   */
  grantCredit(): readonly EpochState[] {
    const ended: EpochState[] = [];
    for (const request of this.#requests.values()) {
      const underWayBytes = underWayOf(request);
      const wantedBytes = Math.floor(this.#window.bytes - underWayBytes);
      if (wantedBytes < this.#window.bytes * creditGrantRatio) continue;
      const hadItsTurn = this.#isSomeoneWaiting && request.grantedBytes >= bytesPerTurnMax;
      const bytes = hadItsTurn ? 0 : this.#granted(request.state, wantedBytes);
      if (bytes > 0) {
        this.#credit(request, bytes);
      } else if (underWayBytes <= 0) {
        this.#cancel(request);
        ended.push(request.state);
      }
    }
    return ended;
  }

  /** The producer is through with a request; returns whose it was. */
  end(requestId: string): EpochState | undefined {
    const request = this.#requests.get(requestId);
    if (request === undefined) return undefined;
    this.#requests.delete(requestId);
    this.#settle(request);
    return request.state;
  }

  dropTimedOut(): void {
    const oldestMs = this.#clock.monotonicMs() - this.#options.queryTimeoutMs;
    for (const request of this.#requests.values()) {
      if (request.progressedAtMs > oldestMs) continue;
      this.#cancel(request);
    }
  }

  clear(): void {
    for (const request of this.#requests.values()) this.#giveBack(request);
    this.#requests.clear();
    this.#window.reset();
  }

  #cancel(request: Request): void {
    this.#requests.delete(request.id);
    this.#settle(request);
    this.#send({ v: controlMessageVersion, kind: 'cancel', request: request.id });
  }

  #credit(request: Request, bytes: number): void {
    request.grantedBytes += bytes;
    if (request.mark.throughBytes === Number.POSITIVE_INFINITY) {
      const atMs = this.#clock.monotonicMs();
      request.mark = { atMs, throughBytes: request.grantedBytes };
    }
    this.#send({ v: controlMessageVersion, kind: 'credit', request: request.id, bytes });
  }

  /** What the quotas allow of it, if that is worth a message; else nothing. */
  #granted(state: EpochState, bytesMax: number): number {
    if (this.#quotas === undefined) return bytesMax;
    const { vm } = state.stream;
    const bytes = this.#quotas.grant(vm, bytesMax);
    if (bytes >= Math.min(bytesMax, grantBytesMin)) return bytes;
    this.#quotas.giveBack(vm, bytes);
    return 0;
  }

  /** False when the quotas allow nothing now. */
  #ask(state: EpochState, fromSeq: number, throughSeq: number): boolean {
    const creditBytes = this.#granted(state, Math.floor(this.#window.bytes));
    if (creditBytes === 0) return false;
    const id = Buffer.from(this.#random.bytes(requestIdBytes)).toString('hex');
    const nowMs = this.#clock.monotonicMs();
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
    return true;
  }

  #giveBack(request: Request): void {
    this.#quotas?.giveBack(request.state.stream.vm, underWayOf(request));
  }

  #settle(request: Request): void {
    this.#giveBack(request);
    this.#noteOutcome(request);
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

/** Below zero when the last frame was larger than what was left. */
function underWayOf({ grantedBytes, arrivedBytes }: Request): number {
  return grantedBytes - arrivedBytes;
}
