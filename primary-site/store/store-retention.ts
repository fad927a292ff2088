import type { Clock } from '../../common/runtime/clock.ts';
import { BookkeepingRetention } from './bookkeeping-retention.ts';
import type { PrimaryStore } from './primary-store.ts';

export interface StoreRetentionOptions {
  /** Readings whose event time is older than this go; of one that was ahead of its arrival, the arrival counts. */
  readonly ageMaxMs: number;
  /** The database file; above it the oldest readings and frames go. */
  readonly bytesMax: number;
}

/** Readings that one pass removes at most, so that it holds up arriving frames for milliseconds only. */
const readingsPerPassMax = 5_000;
const targetRatio = 0.95;
/** Readings arrive about in order of their times: windows this much older than the oldest reading are over. */
const slackUs = 3_600_000_000;

/**
 * Removes what is too old or too much, in order of arrival: a batch of readings, and the frames that held only such. Ranges
 * of what was stored stay, so that nobody asks for removed frames again.
 */
export class StoreRetention {
  readonly #store: PrimaryStore;
  readonly #clock: Clock;
  readonly #options: StoreRetentionOptions;
  #bookkeeping: BookkeepingRetention | undefined;

  constructor(
    deps: { readonly store: PrimaryStore; readonly clock: Clock },
    options: StoreRetentionOptions,
  ) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#options = options;
  }

  /** Pages in use, in bytes; free pages are reused before the file grows. */
  usedBytes(): number {
    const pragma = (name: string): number =>
      Number(this.#store.database.pragma(name, { simple: true }));
    return (pragma('page_count') - pragma('freelist_count')) * pragma('page_size');
  }

  /** One bounded pass; true when there is more to remove. */
  prune(): boolean {
    const isTooMuch = this.usedBytes() > this.#options.bytesMax * targetRatio;
    const oldestUs = this.#clock.wallUs() - this.#options.ageMaxMs * 1_000;
    this.#pruneBookkeeping(oldestUs);
    const throughPosition = this.#expiredThrough(isTooMuch ? Number.MAX_SAFE_INTEGER : oldestUs);
    if (throughPosition === 0) return false;
    this.#store.database.transaction(() => {
      this.#store.database
        .prepare<[number]>('DELETE FROM readings WHERE position <= ?')
        .run(throughPosition);
      // The newest frame stays: its last position is the one to count on from.
      this.#store.database
        .prepare<[number]>(
          'DELETE FROM frames WHERE last_position <= ? AND frame_id < (SELECT max(frame_id) FROM frames)',
        )
        .run(throughPosition);
    })();
    return true;
  }

  /** What belongs to readings that are gone, by age or by size, is as old as they are. */
  #pruneBookkeeping(oldestUs: number): void {
    const { database } = this.#store;
    this.#bookkeeping ??= new BookkeepingRetention(database);
    const bookkeeping = this.#bookkeeping;
    const oldestKept = database
      .prepare<[], ReadingRow>('SELECT position, time_us FROM readings ORDER BY position LIMIT 1')
      .get();
    const oldestKeptUs = oldestKept === undefined ? 0 : this.#agesFromUs(oldestKept);
    const beforeMs = Math.floor(Math.max(oldestUs, oldestKeptUs - slackUs) / 1_000);
    const gone = database.transaction(() => bookkeeping.prune(beforeMs))();
    if (gone.length > 0) this.#store.forgetSeries(gone);
  }

  /** The last position of the run of oldest readings that are before `beforeUs`; 0 when the oldest is not. */
  #expiredThrough(beforeUs: number): number {
    const rows = this.#store.database
      .prepare<[number], ReadingRow>(
        'SELECT position, time_us FROM readings ORDER BY position LIMIT ?',
      )
      .all(readingsPerPassMax);
    const firstKept = rows.findIndex(
      (row) => row.time_us >= beforeUs && this.#agesFromUs(row) >= beforeUs,
    );
    const last = firstKept === -1 ? rows.at(-1) : rows[firstKept - 1];
    return last?.position ?? 0;
  }

  /** A wrong clock in a guest may give a time far ahead, which would never be old: then its frame's arrival counts. */
  #agesFromUs({ position, time_us: timeUs }: ReadingRow): number {
    const arrivedAtUs = this.#store.database
      .prepare<[number], number>(
        `SELECT arrived_at_us FROM frames WHERE last_position >= ? AND arrived_at_us IS NOT NULL
         ORDER BY last_position LIMIT 1`,
      )
      .pluck()
      .get(position);
    return Math.min(timeUs, arrivedAtUs ?? timeUs);
  }
}

interface ReadingRow {
  readonly position: number;
  readonly time_us: number;
}
