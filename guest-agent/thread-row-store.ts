import type { Area, LostRange, PerArea, Registration } from '../common/channel/message.ts';
import { areas } from '../common/channel/message.ts';
import type { Cancel, Clock } from '../common/runtime/clock.ts';
import type { FetchedRows, FetchLimits, Publication, RowStore } from './channel/row-store.ts';
import type { StoreMessage } from './store/store-loop.ts';
import type { StoreReader } from './store/store-reader.ts';
import type { StoreThreadService } from './store/store-thread-service.ts';

/** Tables whose newest row is remembered; beyond it a fetch looks into all tables again. */
const rememberedTablesMax = 4_096;

/** Which tables got rows since when, so that a fetch need not look into all of them. */
interface RecentTables {
  /** Every watched table with a row after this, and published through `throughRowId`, is in `newest`. */
  sinceRowId: number;
  throughRowId: number;
  readonly newest: Map<string, number>;
}

/**
 * The store as the guest channel sees it: reads through a read-only connection on the main thread, and passes wishes to
 * the store thread. Messages of the store thread are handed to {@link take} by whoever owns its service.
 */
export class ThreadRowStore implements RowStore {
  readonly #thread: StoreThreadService;
  readonly #reader: StoreReader;
  readonly #clock: Clock;
  readonly #generations: PerArea<string>;
  readonly #publicationListeners = new Set<(publication: Publication) => void>();
  readonly #lostListeners = new Set<(area: Area, range: LostRange) => void>();
  readonly #watched: Record<Area, (() => void)[]> = { encrypted: [], unencrypted: [] };
  readonly #recent: Record<Area, RecentTables | undefined> = {
    encrypted: undefined,
    unencrypted: undefined,
  };

  constructor(deps: {
    readonly thread: StoreThreadService;
    readonly reader: StoreReader;
    readonly clock: Clock;
  }) {
    this.#thread = deps.thread;
    this.#reader = deps.reader;
    this.#clock = deps.clock;
    this.#generations = {
      encrypted: deps.reader.generation('encrypted').generation,
      unencrypted: deps.reader.generation('unencrypted').generation,
    };
  }

  /** What the store thread says; anything that is not about rows is left alone. */
  take(message: StoreMessage): void {
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
        const rowId = this.head(message.area);
        this.#recent[message.area] = {
          sinceRowId: rowId,
          throughRowId: rowId,
          newest: new Map(),
        };
        this.#watched[message.area].shift()?.();
        return;
      }
      case 'generation':
      case 'report':
      case 'started':
      case 'stopped':
      default:
    }
  }

  generations(): PerArea<string> {
    return this.#generations;
  }

  head(area: Area): number {
    return this.#thread.progress.frontier(area);
  }

  fetch(
    area: Area,
    afterRowId: number,
    limits: FetchLimits,
    isWanted: (table: string) => boolean,
  ): FetchedRows {
    const headRowId = this.head(area);
    const recent = this.#recent[area];
    const isKnown = recent !== undefined && afterRowId >= recent.sinceRowId;
    // The head may be ahead of the publications that were heard of: their tables come with the next fetch.
    const throughRowId = isKnown ? Math.min(headRowId, recent.throughRowId) : headRowId;
    const fetched = this.#reader.fetch({
      area,
      afterRowId,
      throughRowId,
      ...(isKnown ? { tables: tablesAfter(recent, afterRowId) } : {}),
      isWanted,
      ...limits,
    });
    const lost = this.#reader
      .lost(area, afterRowId)
      .filter(({ throughRowId }) => throughRowId <= fetched.throughRowId)
      .map((range) => lostRange(range.rowCount, range.fromRowId, range.throughRowId));
    return { ...fetched, lost, hasMore: fetched.hasMore || throughRowId < headRowId };
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

  #remember(area: Area, tables: readonly string[], throughRowId: number): void {
    const recent = this.#recent[area];
    if (recent === undefined) return;
    recent.throughRowId = Math.max(recent.throughRowId, throughRowId);
    for (const table of tables) recent.newest.set(table, throughRowId);
    if (recent.newest.size > rememberedTablesMax) {
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
  return { count, fromRowId: fromRowId - 1, throughRowId, reason: 'the database bound was reached' };
}
