import type { Area, PerArea } from '../../common/channel/area.ts';
import type { GuestRow } from '../../common/channel/guest-row.ts';
import type { LostRange, Registration } from '../../common/channel/message.ts';
import type { Cancel } from '../../common/runtime/clock.ts';
import type {
  FetchedRows,
  FetchLimits,
  Publication,
  RowStore,
} from '../../guest-agent/channel/row-store.ts';

const rowBytes = 64;

/** A guest store in memory, with everything that the channel can see of a real one. */
export class MemoryRowStore implements RowStore {
  readonly acknowledged = { encrypted: 0, unencrypted: 0 };
  registrations: readonly Registration[] = [];
  watermarkTimeUs = 0;
  /** The next fetches throw, as a busy database does. */
  failingFetchCount = 0;
  /** The next readings of the head throw, too. */
  failingHeadCount = 0;
  fetchCount = 0;
  readonly #generations: PerArea<string>;
  readonly #rows: Record<Area, GuestRow[]> = { encrypted: [], unencrypted: [] };
  readonly #lost: Record<Area, LostRange[]> = { encrypted: [], unencrypted: [] };
  readonly #heads = { encrypted: 0, unencrypted: 0 };
  readonly #published = new Set<(publication: Publication) => void>();
  readonly #lostListeners = new Set<(area: Area, range: LostRange) => void>();

  constructor(generation = 'generation-1') {
    this.#generations = { encrypted: `${generation}-e`, unencrypted: `${generation}-u` };
  }

  /** Publishes rows of one commit; row ids are assigned. */
  publish(
    rows: readonly Pick<GuestRow, 'table' | 'columns' | 'values'>[],
    area: Area = 'unencrypted',
    savedAtUs = 1,
  ): void {
    for (const row of rows) {
      this.#heads[area] += 1;
      this.#rows[area].push({ area, rowId: this.#heads[area], savedAtUs, ...row });
    }
    const tables = [...new Set(rows.map(({ table }) => table))];
    for (const listener of this.#published) {
      listener({ area, tables, throughRowId: this.#heads[area] });
    }
  }

  /** Prunes the rows after `fromRowId` up to `throughRowId` as if the size bound had been reached. */
  prune(area: Area, fromRowId: number, throughRowId: number): void {
    const isPruned = ({ rowId }: GuestRow): boolean => rowId > fromRowId && rowId <= throughRowId;
    const count = this.#rows[area].filter(isPruned).length;
    this.#rows[area] = this.#rows[area].filter((row) => !isPruned(row));
    const range = { fromRowId, throughRowId, count, reason: 'database-full' };
    this.#lost[area].push(range);
    for (const listener of this.#lostListeners) listener(area, range);
  }

  generations(): PerArea<string> {
    return this.#generations;
  }

  head(area: Area): number {
    if (this.failingHeadCount > 0) {
      this.failingHeadCount -= 1;
      throw new Error('database is locked');
    }
    return this.#heads[area];
  }

  fetch(
    area: Area,
    afterRowId: number,
    limits: FetchLimits,
    isWanted: (table: string) => boolean,
  ): FetchedRows {
    this.fetchCount += 1;
    if (this.failingFetchCount > 0) {
      this.failingFetchCount -= 1;
      throw new Error('database is locked');
    }
    const rowsMax = Math.min(limits.rowsMax, Math.max(1, Math.floor(limits.bytesMax / rowBytes)));
    const stored = this.#rows[area];
    const begin = lowerBound(stored, afterRowId);
    const wanted: GuestRow[] = [];
    let index = begin;
    for (; index < stored.length && wanted.length < rowsMax; index += 1) {
      const row = stored[index]!;
      if (isWanted(row.table)) wanted.push(row);
    }
    const hasMore = index < stored.length;
    const throughRowId = hasMore
      ? (stored[index - 1]?.rowId ?? afterRowId)
      : Math.max(afterRowId, this.#heads[area]);
    const lost = this.#lost[area].filter(
      (range) => range.throughRowId > afterRowId && range.throughRowId <= throughRowId,
    );
    return { rows: wanted, lost, throughRowId, hasMore };
  }

  registerTables(registrations: readonly Registration[]): Promise<void> {
    this.registrations = registrations;
    return Promise.resolve();
  }

  acknowledge(area: Area, throughRowId: number): void {
    this.acknowledged[area] = throughRowId;
    this.#lost[area] = this.#lost[area].filter((range) => range.throughRowId > throughRowId);
  }

  watermarkUs(): number {
    return this.watermarkTimeUs;
  }

  onPublished(listener: (publication: Publication) => void): Cancel {
    this.#published.add(listener);
    return () => {
      this.#published.delete(listener);
    };
  }

  onLost(listener: (area: Area, range: LostRange) => void): Cancel {
    this.#lostListeners.add(listener);
    return () => {
      this.#lostListeners.delete(listener);
    };
  }
}

/** Index of the first row after `afterRowId`. */
function lowerBound(rows: readonly GuestRow[], afterRowId: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (rows[middle]!.rowId <= afterRowId) low = middle + 1;
    else high = middle;
  }
  return low;
}
