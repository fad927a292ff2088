import type { Duplex } from 'node:stream';

import { type Area, areas } from '../../common/channel/area.ts';
import { MessageConnection } from '../../common/channel/message-connection.ts';
import {
  type ChannelMessage,
  type ClockStep,
  type Cursor,
  type MessageOf,
  type Registration,
} from '../../common/channel/message.ts';
import {
  fetchBytesMax,
  fetchRowsMax,
  protocolVersion,
  protocolVersionOldest,
  type ChannelTimings,
} from '../../common/channel/protocol.ts';
import { backoffDelayMs, type BackoffPolicy } from '../../common/runtime/backoff.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { ClockExchange } from './clock-offset.ts';
import type { RowArrival } from './row-arrival.ts';

/** A hello without a welcome is said again: the guest may have been starting. */
const helloIntervalMs = 1_000;
/** Exchanges made one after the other at the beginning, of which the quickest counts most. */
const firstExchangeCount = 4;
/** After the guest's store failed, or an answer brought nothing; until then nothing else makes a fetch of the area. */
const refetchPolicy: BackoffPolicy = {
  initialMs: 100,
  maxMs: 5_000,
  attemptsMax: Number.POSITIVE_INFINITY,
};

export interface HostSessionOptions {
  readonly hostInstance: string;
  readonly clockIntervalMs: number;
  readonly requestTimeoutMs: number;
  readonly timings: ChannelTimings;
}

/** What the session tells, and asks, the client. */
export interface HostSessionHandler {
  registrations(): readonly Registration[];
  /** Where the next fetch of the area starts; undefined when none is wanted now. */
  fetchFrom(area: Area): Cursor | undefined;
  welcome(message: MessageOf<'welcome'>): void;
  /** The valid answer to a fetch from `cursor`. */
  rows(message: MessageOf<'rows'>, cursor: Cursor): void;
  /** The guest could not answer a fetch of the area; it is asked again later. */
  fetchFailed(area: Area, reason: string): void;
  watermark(message: MessageOf<'watermark'>): void;
  clockStep(step: ClockStep): void;
  exchanged(exchange: ClockExchange): void;
  closed(reason: string): void;
}

interface Fetch {
  readonly requestId: number;
  readonly cursor: Cursor;
  readonly sentAtMs: number;
}

/**
 * One connection to a guest, from hello to end.
 *
 *   greeting --welcome--> synchronizing --first clock-response--> live --close--> over
 *      ^--------------------- invite (guest lost the session) ------'
 */
export class HostSession {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: Random;
  readonly #arrival: RowArrival;
  readonly #options: HostSessionOptions;
  readonly #handler: HostSessionHandler;
  readonly #connection: MessageConnection;
  readonly #fetches = new Map<Area, Fetch>();
  /** Areas whose fetch waits for the listener. */
  readonly #postponed = new Set<Area>();
  /** Areas whose last fetch brought nothing, until the time to try again. */
  readonly #waiting = new Set<Area>();
  readonly #failureCounts = new Map<Area, number>();
  readonly #cancels: Cancel[] = [];
  #state: 'greeting' | 'synchronizing' | 'live' | 'over' = 'greeting';
  #agentInstance: string | undefined;
  #requestCount = 0;
  #exchangesLeft = 0;
  #clockAskedAtMs: number | undefined;

  constructor(
    deps: {
      readonly clock: Clock;
      readonly log: Log;
      readonly random: Random;
      readonly arrival: RowArrival;
    },
    stream: Duplex,
    options: HostSessionOptions,
    handler: HostSessionHandler,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#random = deps.random;
    this.#arrival = deps.arrival;
    this.#options = options;
    this.#handler = handler;
    const connectionHandler = {
      message: (message: ChannelMessage, session: number) => {
        this.#receive(message, session);
      },
      damage: ({ cause, byteCount }: { cause: string; byteCount: number }) => {
        this.#log.warn('guest-channel-bytes-skipped', { cause, byteCount });
        // Before the welcome it is what a predecessor left; later an answer may be gone with it.
        if (this.#state !== 'greeting') this.#fail('damaged');
      },
      closed: (reason: string, error: Error | null) => {
        this.#end(error === null ? reason : `${reason}: ${error.message}`);
      },
    };
    this.#connection = new MessageConnection(deps, stream, connectionHandler, options.timings);
  }

  start(): void {
    this.#greet();
    this.#cancels.push(
      this.#clock.every(helloIntervalMs, () => {
        this.#watch();
      }),
      this.#clock.every(this.#options.clockIntervalMs, () => {
        if (this.#state === 'live') this.#askClock();
      }),
      this.#arrival.start(() => {
        this.fetchAll();
      }),
    );
  }

  close(): void {
    this.#connection.close();
  }

  /** Sends the registrations anew, after they changed. */
  register(): void {
    if (this.#state !== 'synchronizing' && this.#state !== 'live') return;
    this.#connection.send({
      kind: 'register',
      notify: this.#arrival.wantsNotifications,
      registrations: [...this.#handler.registrations()],
    });
  }

  acknowledge(area: Area, cursor: Cursor): void {
    if (this.#state === 'synchronizing' || this.#state === 'live') {
      this.#connection.send({ kind: 'acknowledge', area, cursor });
    }
  }

  isFetching(area: Area): boolean {
    return this.#fetches.has(area);
  }

  get fetchCount(): number {
    return this.#fetches.size;
  }

  fetchAll(): void {
    for (const area of areas) this.fetch(area);
  }

  /** Asks for the rows after the cursor, unless an answer is on its way or none is wanted. */
  fetch(area: Area): void {
    if (this.#state !== 'live' || this.#fetches.has(area) || this.#waiting.has(area)) return;
    const cursor = this.#handler.fetchFrom(area);
    if (cursor === undefined) {
      this.#postponed.add(area);
      return;
    }
    this.#postponed.delete(area);
    this.#requestCount += 1;
    const requestId = this.#requestCount;
    this.#fetches.set(area, { requestId, cursor, sentAtMs: this.#clock.monotonicMs() });
    const [rowsMax, bytesMax] = [fetchRowsMax, fetchBytesMax];
    this.#connection.send({ kind: 'fetch', requestId, area, cursor, rowsMax, bytesMax });
  }

  /** Makes the fetches that had to wait for the listener. */
  fetchPostponed(): void {
    for (const area of this.#postponed) this.fetch(area);
  }

  #greet(): void {
    this.#state = 'greeting';
    this.#fetches.clear();
    this.#postponed.clear();
    this.#clockAskedAtMs = undefined;
    const session = Buffer.from(this.#random.bytes(4)).readUInt32BE(0);
    // 0 is what frames outside of any session carry.
    this.#connection.session = session === 0 ? 1 : session;
    this.#sayHello();
  }

  #sayHello(): void {
    this.#connection.send({
      kind: 'hello',
      versions: { oldest: protocolVersionOldest, newest: protocolVersion },
      hostInstance: this.#options.hostInstance,
    });
  }

  /** Repeats the hello, and ends a connection on which a request stays unanswered though the peer is alive. */
  #watch(): void {
    if (this.#state === 'greeting') this.#sayHello();
    const overdueSinceMs = this.#clock.monotonicMs() - this.#options.requestTimeoutMs;
    const askedAtMs = [...this.#fetches.values()].map(({ sentAtMs }) => sentAtMs);
    if (this.#clockAskedAtMs !== undefined) askedAtMs.push(this.#clockAskedAtMs);
    if (askedAtMs.some((atMs) => atMs < overdueSinceMs)) this.#fail('request-timeout');
  }

  #receive(message: ChannelMessage, session: number): void {
    if (message.kind === 'invite') {
      this.#invited(message);
      return;
    }
    // What a predecessor's session left in the pipe.
    if (session !== this.#connection.session) return;
    switch (message.kind) {
      case 'welcome':
        this.#welcomed(message);
        break;
      case 'published':
        if (this.#arrival.announced(message.area)) this.fetch(message.area);
        break;
      case 'rows':
        this.#answered(message);
        break;
      case 'watermark':
        if (this.#state === 'live') this.#handler.watermark(message);
        break;
      case 'clock-response':
        this.#clockAnswered(message);
        break;
      case 'clock-step':
        this.#handler.clockStep(message);
        this.#askClock();
        break;
      case 'error':
        this.#failed(message);
        break;
      case 'ping':
        break;
      // What only a host says.
      case 'hello':
      case 'register':
      case 'fetch':
      case 'acknowledge':
      case 'clock-request':
        break;
    }
  }

  #invited({ agentInstance, endedSession }: MessageOf<'invite'>): void {
    if (this.#state === 'greeting') this.#sayHello();
    else if (endedSession === this.#connection.session || agentInstance !== this.#agentInstance) {
      this.#greet();
    }
  }

  /** A second welcome answers a repeated hello. */
  #welcomed(message: MessageOf<'welcome'>): void {
    if (this.#state !== 'greeting') return;
    this.#state = 'synchronizing';
    this.#agentInstance = message.agentInstance;
    this.#handler.welcome(message);
    this.register();
    this.#exchangesLeft = firstExchangeCount;
    this.#askClock();
  }

  #askClock(): void {
    if (this.#clockAskedAtMs !== undefined || this.#state === 'greeting') return;
    this.#clockAskedAtMs = this.#clock.monotonicMs();
    this.#requestCount += 1;
    const hostSentUs = this.#clock.wallUs();
    this.#connection.send({ kind: 'clock-request', requestId: this.#requestCount, hostSentUs });
  }

  #clockAnswered(response: MessageOf<'clock-response'>): void {
    const askedAtMs = this.#clockAskedAtMs;
    if (askedAtMs === undefined) return;
    this.#clockAskedAtMs = undefined;
    const { hostSentUs, guestReceivedUs, guestSentUs } = response;
    // The round trip by the monotonic clock: the host's wall clock may be set meanwhile, too.
    const elapsedUs = Math.ceil((this.#clock.monotonicMs() - askedAtMs) * 1_000);
    const hostReceivedUs = hostSentUs + elapsedUs;
    this.#handler.exchanged({ hostSentUs, guestReceivedUs, guestSentUs, hostReceivedUs });
    this.#exchangesLeft -= 1;
    if (this.#state === 'synchronizing') {
      this.#state = 'live';
      this.fetchAll();
    }
    if (this.#exchangesLeft > 0) this.#askClock();
  }

  #answered(message: MessageOf<'rows'>): void {
    const fetch = this.#fetches.get(message.area);
    if (fetch?.requestId !== message.requestId) return;
    this.#fetches.delete(message.area);
    const { generation, rowId } = fetch.cursor;
    const firstRowId = message.rows[0]?.rowId ?? Infinity;
    const isValid =
      message.generation === generation && message.throughRowId >= rowId && firstRowId > rowId;
    if (!isValid) {
      this.#fail('wrong-rows');
      return;
    }
    const isStuck = message.hasMore && message.throughRowId <= rowId;
    if (!isStuck) this.#handler.rows(message, fetch.cursor);
    else {
      this.#handler.fetchFailed(message.area, 'the guest has more rows but gives none');
      this.#fetchLater(message.area);
      return;
    }
    this.#failureCounts.delete(message.area);
    if (message.hasMore) this.fetch(message.area);
  }

  #failed({ code, message, requestId }: MessageOf<'error'>): void {
    this.#log.warn('guest-channel-error', { code, message });
    if (code !== 'store-failed') {
      this.#fail(code);
      return;
    }
    for (const [area, fetch] of this.#fetches) {
      if (fetch.requestId !== requestId) continue;
      this.#fetches.delete(area);
      this.#handler.fetchFailed(area, message);
      this.#fetchLater(area);
    }
  }

  #fetchLater(area: Area): void {
    const failureCount = this.#failureCounts.get(area) ?? 0;
    this.#failureCounts.set(area, failureCount + 1);
    const delayMs = backoffDelayMs(refetchPolicy, failureCount, this.#random);
    this.#waiting.add(area);
    const cancel = this.#clock.after(delayMs, () => {
      this.#waiting.delete(area);
      this.#cancels.splice(this.#cancels.indexOf(cancel), 1);
      this.fetch(area);
    });
    this.#cancels.push(cancel);
  }

  #fail(reason: string): void {
    this.#end(reason);
    this.#connection.close();
  }

  #end(reason: string): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    for (const cancel of this.#cancels.splice(0)) cancel();
    this.#fetches.clear();
    this.#handler.closed(reason);
  }
}
