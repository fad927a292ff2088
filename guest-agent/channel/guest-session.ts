import { type Area, areas, type PerArea } from '../../common/channel/area.ts';
import type { MessageConnection } from '../../common/channel/message-connection.ts';
import { type MessageOf } from '../../common/channel/message.ts';
import { fetchBytesMax, fetchRowsMax } from '../../common/channel/protocol.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { Publication, RowStore } from './row-store.ts';
import { compileTableFilters, type TableFilter } from './table-filter.ts';

/** Names in one notification; they are a hint, the fetch gives the rows. */
const announcedTablesMax = 64;

interface AreaState {
  isWanted: TableFilter | undefined;
  /** The last row that the registration covers, where `hasTriggers`; without them any row may be one. */
  matchedRowId: number;
  /** True from a complete answer on until something is announced: the host fetches then anyway. */
  mayAnnounce: boolean;
  /** What the answers have covered, which needs no announcement. */
  answeredRowId: number;
}

export interface GuestSessionDeps {
  readonly store: RowStore;
  readonly log: Log;
  readonly counters: StageCounters;
  /** Tells the host of a step of the clock that it does not know of: before it gets times that were read after it. */
  readonly checkClock: () => void;
}

/**
 * One host's session: what it registered, and what it was told. Holds no rows: they are read from the store when
 * the host asks for them.
 */
export class GuestSession {
  readonly id: number;
  readonly #connection: MessageConnection;
  readonly #store: RowStore;
  readonly #log: Log;
  readonly #counters: StageCounters;
  readonly #checkClock: () => void;
  readonly #areas: PerArea<AreaState>;
  #notify = false;
  #hasTriggers = false;
  #registrationCount = 0;

  constructor(deps: GuestSessionDeps, connection: MessageConnection, id: number) {
    this.id = id;
    this.#connection = connection;
    this.#store = deps.store;
    this.#log = deps.log;
    this.#counters = deps.counters;
    this.#checkClock = deps.checkClock;
    this.#areas = {
      encrypted: this.#newArea('encrypted'),
      unencrypted: this.#newArea('unencrypted'),
    };
  }

  /** Resolves when the store announces what was registered; what came meanwhile is announced then. */
  async register({ notify, registrations }: MessageOf<'register'>): Promise<void> {
    const filters = compileTableFilters(registrations);
    for (const area of areas) this.#areas[area].isWanted = filters[area];
    this.#notify = notify;
    this.#hasTriggers = false;
    this.#registrationCount += 1;
    const registration = this.#registrationCount;
    await this.#store.registerTables(notify ? registrations : []);
    if (!notify || registration !== this.#registrationCount) return;
    this.#hasTriggers = true;
    for (const area of areas) {
      const { isWanted } = this.#areas[area];
      if (isWanted !== undefined) this.#announce(area, [], this.#store.head(area));
    }
  }

  published({ area, tables, throughRowId }: Publication): void {
    const state = this.#areas[area];
    const { isWanted } = state;
    if (isWanted === undefined) return;
    const wantedTables = tables.filter((table) => isWanted(table));
    if (wantedTables.length > 0) this.#announce(area, wantedTables, throughRowId);
  }

  /** A lost range concerns whoever reads the area, whatever the tables were. */
  lost(area: Area, throughRowId: number): void {
    if (this.#areas[area].isWanted !== undefined) this.#announce(area, [], throughRowId);
  }

  fetch(request: MessageOf<'fetch'>): void {
    const { area, requestId, cursor } = request;
    const generation = this.#store.generations()[area];
    if (cursor.generation !== generation) {
      const message = `the ${area} database has generation ${generation}`;
      this.#connection.send({ kind: 'error', code: 'generation-changed', message, requestId });
      return;
    }
    try {
      this.#checkCursor(area, cursor.rowId);
      const state = this.#areas[area];
      const limits = {
        rowsMax: Math.min(request.rowsMax, fetchRowsMax),
        bytesMax: Math.min(request.bytesMax, fetchBytesMax),
      };
      const isWanted = state.isWanted ?? (() => false);
      const fetched = this.#store.fetch(area, cursor.rowId, limits, isWanted);
      state.mayAnnounce = !fetched.hasMore;
      state.answeredRowId = fetched.throughRowId;
      this.#counters.accepted += fetched.rows.length;
      this.#checkClock();
      this.#connection.send({ kind: 'rows', requestId, area, generation, ...fetched });
      this.#counters.forwarded += fetched.rows.length;
    } catch (error) {
      this.#counters.failAtOnce();
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.warn('guest-channel-fetch-failed', { area, rowId: cursor.rowId, reason });
      // The reason is for this machine's log: it may name files that are none of the host's business.
      this.#connection.send({
        kind: 'error',
        code: 'store-failed',
        message: 'the rows could not be read; the guest agent has logged why',
        requestId,
      });
    }
  }

  acknowledge({ area, cursor }: MessageOf<'acknowledge'>): void {
    // An acknowledgement of another generation would prune what nobody has.
    if (cursor.generation !== this.#store.generations()[area]) return;
    this.#store.acknowledge(area, cursor.rowId);
  }

  /** Sends the watermark; skipped while bytes wait for the host, as a later one says more. */
  tick(): void {
    if (this.#connection.isCongested) return;
    // In this order: what the watermark excludes lies below heads that are read after it.
    const timeUs = this.#store.watermarkUs();
    const [encrypted, unencrypted] = [this.#standing('encrypted'), this.#standing('unencrypted')];
    this.#checkClock();
    this.#connection.send({ kind: 'watermark', timeUs, areas: { encrypted, unencrypted } });
  }

  /**
   * A host that stands beyond our head has rows that this database never had: it was rolled back together with its side
   * file. The store decides, and begins a new generation; silence would skip every row up to the host's cursor.
   */
  #checkCursor(area: Area, rowId: number): void {
    const headRowId = this.#store.head(area);
    if (rowId <= headRowId) return;
    this.#log.warn('guest-channel-host-is-ahead', { area, rowId, headRowId });
    this.#store.acknowledge(area, rowId);
  }

  #announce(area: Area, tables: readonly string[], throughRowId: number): void {
    const state = this.#areas[area];
    state.matchedRowId = Math.max(state.matchedRowId, throughRowId);
    if (!this.#notify || !state.mayAnnounce || throughRowId <= state.answeredRowId) return;
    state.mayAnnounce = false;
    this.#connection.send({
      kind: 'published',
      area,
      tables: tables.slice(0, announcedTablesMax),
      throughRowId,
    });
  }

  #standing(area: Area): { matchedRowId: number; headRowId: number } {
    const headRowId = this.#store.head(area);
    const { matchedRowId } = this.#areas[area];
    return {
      matchedRowId: this.#hasTriggers ? Math.min(matchedRowId, headRowId) : headRowId,
      headRowId,
    };
  }

  #newArea(area: Area): AreaState {
    return {
      isWanted: undefined,
      matchedRowId: this.#store.head(area),
      mayAnnounce: false,
      answeredRowId: 0,
    };
  }
}
