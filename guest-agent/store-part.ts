import assert from 'node:assert';
import type { MessagePort } from 'node:worker_threads';

import { type Area, areas, type PerArea } from '../common/channel/area.ts';
import { type LostRange, type Registration } from '../common/channel/message.ts';
import type { Cancel, Clock } from '../common/runtime/clock.ts';
import type { Log, LogLevel } from '../common/runtime/log.ts';
import type { Service } from '../common/runtime/service.ts';
import type { FetchedRows, FetchLimits, Publication, RowStore } from './channel/row-store.ts';
import type { StoreMessage } from './store/store-loop.ts';
import type { StoreOptions } from './store/store-options.ts';
import { StoreReader } from './store/store-reader.ts';
import type { StoreSharedMemory } from './store/store-rings.ts';
import { StoreThreadService } from './store/store-thread-service.ts';

const rememberedTablesMaxDefault = 4_096;

/** Which tables got rows since when, so that a fetch need not look into all of them. */
interface RecentTables {
  /** Every watched table with a published row after this is in `newest`. */
  sinceRowId: number;
  readonly newest: Map<string, number>;
}

/** What the store thread says of itself. */
export type StoreReport = Extract<StoreMessage, { readonly kind: 'report' }>;

/**
 * The store, seen from the main thread: owns the store thread, reads through a read-only connection, and passes wishes to
 * the thread. What the guest channel needs of it is its {@link RowStore}.
 */
export class StorePart implements Service, RowStore {
  readonly name = 'store';
  readonly #thread: StoreThreadService;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #requestStop: (reason: string) => void;
  readonly #directory: string;
  readonly #rememberedTablesMax: number;
  #reader: StoreReader | undefined;
  #generations: PerArea<string> = { encrypted: '', unencrypted: '' };
  readonly #publicationListeners = new Set<(publication: Publication) => void>();
  readonly #lostListeners = new Set<(area: Area, range: LostRange) => void>();
  readonly #reportWaiters: ((report: StoreReport) => void)[] = [];
  readonly #watched: Record<Area, (() => void)[]> = { encrypted: [], unencrypted: [] };
  readonly #recent: Record<Area, RecentTables | undefined> = {
    encrypted: undefined,
    unencrypted: undefined,
  };

  constructor(
    deps: {
      readonly clock: Clock;
      readonly log: Log;
      /** The store thread died: nothing is saved any more. */
      readonly onFailure: (error: unknown) => void;
      readonly requestStop: (reason: string) => void;
    },
    options: {
      readonly store: StoreOptions;
      readonly replyDescriptor: number | null;
      readonly replyPort: MessagePort | null;
      readonly logLevel: LogLevel;
      /** Tables whose newest row is remembered; beyond it a fetch looks into all tables again. */
      readonly rememberedTablesMax?: number;
    },
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#requestStop = deps.requestStop;
    this.#directory = options.store.directory;
    this.#rememberedTablesMax = options.rememberedTablesMax ?? rememberedTablesMaxDefault;
    this.#thread = new StoreThreadService(
      {
        onMessage: (message) => {
          this.#take(message);
        },
        onFailure: deps.onFailure,
      },
      options,
    );
  }

  /** For the file system's end of the queue. */
  get memory(): StoreSharedMemory {
    return this.#thread.memory;
  }

  async start(): Promise<void> {
    await this.#thread.start();
    const reader = new StoreReader(this.#directory);
    this.#generations = {
      encrypted: reader.generation('encrypted').generation,
      unencrypted: reader.generation('unencrypted').generation,
    };
    this.#reader = reader;
  }

  async stop(): Promise<void> {
    await this.#thread.stop();
    this.#reader?.close();
    this.#reader = undefined;
  }

  /** The store thread's counters and held saves, between two batches. */
  async report(): Promise<StoreReport> {
    return new Promise((resolve) => {
      this.#reportWaiters.push(resolve);
      this.#thread.requestReport();
    });
  }

  /** The read-only view. Programmer error before the start. */
  get reader(): StoreReader {
    assert(this.#reader !== undefined, 'not started');
    return this.#reader;
  }

  generations(): PerArea<string> {
    return this.#generations;
  }

  head(area: Area): number {
    const rowId = this.#thread.progress.frontier(area);
    // Its publications are announced before it is told: nobody may pass over rows that they never heard of.
    this.#thread.takeMessages();
    return rowId;
  }

  fetch(
    area: Area,
    afterRowId: number,
    limits: FetchLimits,
    isWanted: (table: string) => boolean,
  ): FetchedRows {
    const throughRowId = this.head(area);
    const recent = this.#recent[area];
    const isKnown = recent !== undefined && afterRowId >= recent.sinceRowId;
    const fetched = this.reader.fetch({
      area,
      afterRowId,
      throughRowId,
      ...(isKnown ? { tables: tablesAfter(recent, afterRowId) } : {}),
      isWanted,
      ...limits,
    });
    const lost = this.reader
      .lost(area, afterRowId)
      .filter((range) => range.throughRowId <= fetched.throughRowId)
      .map((range) => lostRange(range.rowCount, range.fromRowId, range.throughRowId));
    return { ...fetched, lost };
  }

  async registerTables(registrations: readonly Registration[]): Promise<void> {
    await Promise.all(
      areas.map(
        (area) =>
          new Promise<void>((resolve) => {
            this.#watched[area].push(resolve);
            const patterns = registrations.filter((wish) => wish.area === area);
            this.#thread.watch(
              area,
              patterns.map(({ tables }) => tables),
            );
          }),
      ),
    );
  }

  acknowledge(area: Area, throughRowId: number): void {
    this.#thread.acknowledge(area, this.#generations[area], throughRowId);
  }

  watermarkUs(): number {
    return this.#thread.progress.watermarkUs(this.#clock.wallUs());
  }

  onPublished(listener: (publication: Publication) => void): Cancel {
    this.#publicationListeners.add(listener);
    return () => {
      this.#publicationListeners.delete(listener);
    };
  }

  onLost(listener: (area: Area, range: LostRange) => void): Cancel {
    this.#lostListeners.add(listener);
    return () => {
      this.#lostListeners.delete(listener);
    };
  }

  #take(message: StoreMessage): void {
    switch (message.kind) {
      case 'published':
        this.#remember(message.area, message.tables, message.throughRowId);
        for (const listener of this.#publicationListeners) listener(message);
        return;
      case 'lost': {
        const { area, count, fromRowId, throughRowId } = message;
        for (const listener of this.#lostListeners) {
          listener(area, lostRange(count, fromRowId, throughRowId));
        }
        return;
      }
      case 'watched': {
        const rowId = this.#thread.progress.frontier(message.area);
        this.#recent[message.area] = {
          sinceRowId: rowId,
          newest: new Map(),
        };
        this.#watched[message.area].shift()?.();
        return;
      }
      case 'report':
        this.#reportWaiters.shift()?.(message);
        return;
      case 'generation':
        // The host has rows that this database never had: a copy from before them. Begin anew under a new generation.
        this.#log.warn('database-rolled-back', { area: message.area });
        this.#requestStop('database-rolled-back');
        return;
      case 'started':
      case 'stopped':
      default:
    }
  }

  #remember(area: Area, tables: readonly string[], throughRowId: number): void {
    const recent = this.#recent[area];
    if (recent === undefined) return;
    for (const table of tables) recent.newest.set(table, throughRowId);
    if (recent.newest.size > this.#rememberedTablesMax) {
      recent.newest.clear();
      recent.sinceRowId = throughRowId;
    }
  }
}

function tablesAfter(recent: RecentTables, afterRowId: number): readonly string[] {
  const tables: string[] = [];
  for (const [table, newestRowId] of recent.newest) {
    if (newestRowId > afterRowId) tables.push(table);
  }
  return tables;
}

/** The channel's ranges are open below, the store's closed. */
function lostRange(count: number, fromRowId: number, throughRowId: number): LostRange {
  return {
    count,
    fromRowId: fromRowId - 1,
    throughRowId,
    reason: 'the database bound was reached',
  };
}
