import type { Duplex } from 'node:stream';

import { type Area, areas } from '../../common/channel/area.ts';
import { type Cursor, type MessageOf, type Registration } from '../../common/channel/message.ts';
import { channelTimings, type ChannelTimings } from '../../common/channel/protocol.ts';
import { backoffDelayMs, reconnectPolicy } from '../../common/runtime/backoff.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters, type StageCounts } from '../../common/runtime/stage-counters.ts';
import { TroubleKeeper, type ChannelTrouble } from './channel-trouble.ts';
import { ClockOffset, type CorrectedTime } from './clock-offset.ts';
import { connectGuest, type GuestAddress } from './connect-guest.ts';
import type { GuestListener } from './guest-listener.ts';
import { HandOver, type Cursors } from './hand-over.ts';
import { HostSession, type HostSessionHandler } from './host-session.ts';
import type { RowArrival } from './row-arrival.ts';

export interface GuestChannelClientOptions extends GuestAddress {
  /** Differs at each start of the collector; for the guest's log. */
  readonly hostInstance: string;
  readonly registrations: readonly Registration[];
  /** What is durable at the host: rows after it are given. Without one an area begins at its first row. */
  readonly resumeFrom?: Cursors;
  /** Answers fetched and not yet taken by the listener; nothing is fetched beyond. */
  readonly batchesInHandMax?: number;
  readonly clockIntervalMs?: number;
  /** A connection on which the guest leaves a request unanswered for this long is given up. */
  readonly requestTimeoutMs?: number;
  readonly timings?: ChannelTimings;
}

export interface GuestChannelClientDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly arrival: RowArrival;
  readonly listener: GuestListener;
}

const batchesInHandMaxDefault = 4;
const clockIntervalMsDefault = 2_000;
const requestTimeoutMsDefault = 10_000;
/** Why a connection ends on which the guest said what is no message, or none that may come. */
const unreadableReasons: ReadonlySet<string> = new Set(['malformed', 'damaged', 'wrong-rows']);

/**
 * The host's end of the channel to one guest: stays connected, fetches rows as they come, and gives them to the
 * listener, each once and in order, over any number of reconnections of one run. After a restart of the host it
 * begins at `resumeFrom`.
 */
export class GuestChannelClient implements Service {
  readonly name = 'guest-channel-client';
  readonly #deps: GuestChannelClientDeps;
  readonly #options: GuestChannelClientOptions;
  readonly #offset = new ClockOffset();
  readonly #handOver: HandOver;
  readonly #counters = new StageCounters();
  readonly #troubles: TroubleKeeper;
  readonly #stopping = new AbortController();
  readonly #acknowledged = new Map<Area, Cursor>();
  /** Where the next fetch starts: ahead of what the listener has taken by what is in hand. */
  readonly #fetched: Partial<Record<Area, Cursor>>;
  #registrations: readonly Registration[];
  #wantedAreas: ReadonlySet<Area>;
  #session: HostSession | undefined;
  #failureCount = 0;
  #refusalCount = 0;
  #running: Promise<void> | undefined;

  constructor(deps: GuestChannelClientDeps, options: GuestChannelClientOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#registrations = options.registrations;
    this.#wantedAreas = areasOf(options.registrations);
    this.#fetched = { ...options.resumeFrom };
    this.#troubles = new TroubleKeeper(deps.clock);
    this.#handOver = new HandOver(
      deps.listener,
      options.resumeFrom ?? {},
      (rowCount) => {
        this.#refusalCount = 0;
        this.#troubles.succeeded('hand-over');
        this.#counters.forwarded += rowCount;
        this.#session?.fetchPostponed();
      },
      (error, rowCount) => {
        this.#rewind(error, rowCount);
      },
    );
  }

  /**
   * Rows: fetched (accepted), taken by the listener (forwarded), refused by it and fetched again (failed). Each connection
   * that ended by what is no message is one more that failed.
   */
  get counts(): StageCounts {
    return this.#counters.snapshot();
  }

  /** What keeps failing although the guest can be reached; null while all is well, and while it can't be. */
  get trouble(): ChannelTrouble | null {
    return this.#troubles.longest;
  }

  /** Begins to connect; resolves at once, as a guest may be absent for long. */
  start(): Promise<void> {
    this.#running = this.#run();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the guest channel client stops'));
    this.#session?.close();
    await this.#running;
  }

  /** Replaces the registrations. Tables that are new get rows from now on; those before the cursor are passed. */
  register(registrations: readonly Registration[]): void {
    this.#registrations = registrations;
    this.#wantedAreas = areasOf(registrations);
    this.#session?.register();
    this.#session?.fetchAll();
  }

  /** Everything up to `cursor` is durable at the host. Remembered while the guest is away. */
  acknowledge(area: Area, cursor: Cursor): void {
    const before = this.#acknowledged.get(area);
    if (before?.generation === cursor.generation && before.rowId >= cursor.rowId) return;
    this.#acknowledged.set(area, cursor);
    this.#session?.acknowledge(area, cursor);
  }

  /** A guest's wall time on the host's clock; undefined before the first connection. */
  correct(guestTimeUs: number): CorrectedTime | undefined {
    return this.#offset.correct(guestTimeUs);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        const stream = await connectGuest(this.#options, signal);
        if (signal.aborted) {
          stream.destroy();
          return;
        }
        const reason = await this.#converse(stream);
        this.#deps.log.info('guest-channel-ended', { address: this.#options.address, reason });
      } catch (error) {
        if (signal.aborted) return;
        // Only the first of a row of failures: a VM that is off stays so for long.
        const level = this.#failureCount === 0 ? 'warn' : 'debug';
        const reason = error instanceof Error ? error.message : String(error);
        this.#deps.log[level]('guest-channel-unreachable', { reason });
      }
      if (signal.aborted) return;
      const delayMs = backoffDelayMs(reconnectPolicy, this.#failureCount, this.#deps.random);
      this.#failureCount += 1;
      await this.#deps.clock.sleep(delayMs, signal).catch(() => {});
    }
  }

  /** Resolves with the reason when the connection is over. */
  #converse(stream: Duplex): Promise<string> {
    return new Promise((resolve) => {
      let wasWelcomed = false;
      let hasProgressed = false;
      const progress = (): void => {
        hasProgressed = true;
        this.#troubles.succeeded('conversation');
      };
      const handler: HostSessionHandler = {
        registrations: () => this.#registrations,
        fetchFrom: (area) => this.#fetchFrom(area),
        welcome: (message) => {
          wasWelcomed = true;
          this.#welcomed(message);
        },
        rows: (message, cursor) => {
          progress();
          this.#troubles.succeeded(`fetch ${message.area}`);
          this.#received(message, cursor);
        },
        fetchFailed: (area, reason) => {
          progress();
          this.#troubles.failed(`fetch ${area}`, reason);
        },
        watermark: (message) => {
          progress();
          this.#watermark(message);
        },
        clockStep: (step) => {
          this.#offset.stepped(step);
          this.#deps.listener.clockStep(step);
        },
        exchanged: (exchange) => {
          this.#offset.exchanged(exchange);
        },
        closed: (reason) => {
          this.#session = undefined;
          if (unreadableReasons.has(reason)) this.#counters.failAtOnce();
          this.#handOver.forgetWatermarks();
          // A guest that says nothing at all is off, or not there yet: that is its state, and no trouble.
          const isAbsent = !wasWelcomed && reason === 'silent';
          if (!hasProgressed && !isAbsent) this.#troubles.failed('conversation', reason);
          if (wasWelcomed) this.#deps.listener.disconnected(reason);
          resolve(reason);
        },
      };
      this.#session = new HostSession(
        this.#deps,
        stream,
        {
          hostInstance: this.#options.hostInstance,
          clockIntervalMs: this.#options.clockIntervalMs ?? clockIntervalMsDefault,
          requestTimeoutMs: this.#options.requestTimeoutMs ?? requestTimeoutMsDefault,
          timings: this.#options.timings ?? channelTimings,
        },
        handler,
      );
      this.#session.start();
    });
  }

  #welcomed({ agentInstance, bootId, generations }: MessageOf<'welcome'>): void {
    // A guest that answers is no failure, but a listener that refuses each time is one.
    this.#failureCount = this.#refusalCount;
    this.#offset.bootObserved(bootId);
    this.#handOver.forgetWatermarks();
    this.#deps.listener.connected({ agentInstance, bootId, generations });
    for (const area of areas) {
      const previous = this.#fetched[area]?.generation ?? null;
      const generation = generations[area];
      if (previous !== generation) {
        this.#fetched[area] = { generation, rowId: 0 };
        this.#handOver.generation(area, previous, generation);
      }
      const acknowledged = this.#acknowledged.get(area);
      if (acknowledged?.generation === generation) {
        this.#session?.acknowledge(area, acknowledged);
      }
    }
  }

  #fetchFrom(area: Area): Cursor | undefined {
    if (!this.#wantedAreas.has(area)) return undefined;
    const batchesInHandMax = this.#options.batchesInHandMax ?? batchesInHandMaxDefault;
    const onTheWay = this.#session?.fetchCount ?? 0;
    if (this.#handOver.batchCount + onTheWay >= batchesInHandMax) return undefined;
    return this.#fetched[area];
  }

  #received(message: MessageOf<'rows'>, cursor: Cursor): void {
    const { area, generation, throughRowId, rows } = message;
    // A refused batch has rewound the cursor while this answer was on its way.
    if (this.#fetched[area]?.rowId !== cursor.rowId) return;
    this.#fetched[area] = { generation, rowId: throughRowId };
    this.#counters.accepted += rows.length;
    this.#handOver.batch(message, cursor.rowId);
  }

  #watermark(message: MessageOf<'watermark'>): void {
    for (const area of this.#wantedAreas) this.#passUnwanted(area, message.areas[area]);
    this.#handOver.watermark(message, this.#wantedAreas);
    if (!this.#deps.arrival.wantsNotifications) return;
    // A notification that was missed shows here, as it does when a fetch had to wait for the listener.
    for (const area of this.#wantedAreas) {
      const isBehind = message.areas[area].matchedRowId > (this.#fetched[area]?.rowId ?? 0);
      if (isBehind) this.#session?.fetch(area);
    }
  }

  /** Moves on over rows of tables that nobody registered, so that the guest may prune them. */
  #passUnwanted(area: Area, standing: { matchedRowId: number; headRowId: number }): void {
    const cursor = this.#fetched[area];
    if (cursor === undefined || this.#session === undefined) return;
    if (this.#session.isFetching(area) || this.#handOver.batchCount > 0) return;
    if (cursor.rowId < standing.matchedRowId || cursor.rowId >= standing.headRowId) return;
    const moved = { ...cursor, rowId: standing.headRowId };
    this.#fetched[area] = moved;
    this.#handOver.passed(area, moved);
  }

  #rewind(error: unknown, rowCount: number): void {
    this.#counters.failed += rowCount;
    this.#refusalCount += 1;
    const reason = error instanceof Error ? error.message : String(error);
    this.#troubles.failed('hand-over', reason);
    this.#deps.log.error('guest-rows-refused', { address: this.#options.address, reason });
    for (const area of areas) {
      const cursor = this.#handOver.cursors[area];
      if (cursor === undefined) delete this.#fetched[area];
      else this.#fetched[area] = cursor;
    }
    this.#session?.close();
  }
}

function areasOf(registrations: readonly Registration[]): ReadonlySet<Area> {
  return new Set(registrations.map(({ area }) => area));
}
