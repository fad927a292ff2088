import type { Value } from '../../common/wire/value.ts';
import type { GuestClock } from './guest-clock.ts';

/** The two databases of a guest; each has its own generation and its own row ids. */
export const guestAreas = ['encrypted', 'unencrypted'] as const;
export type GuestArea = (typeof guestAreas)[number];

/** One save of a file, or one line of a logger, as the guest stored it. */
export interface GuestRow {
  readonly area: GuestArea;
  /** The file's path below its area. */
  readonly table: string;
  /** Rises over all tables of the area. */
  readonly rowId: number;
  /** The guest's clock, µs of the epoch. */
  readonly savedAtUs: number;
  readonly columns: readonly string[];
  /** One for each column. */
  readonly values: readonly Value[];
}

/** Everything of one area up to `rowId` of `generation` is durable here. */
export interface GuestCursor {
  readonly generation: string;
  readonly rowId: number;
}

/** What one fetch brought, in row_id order. */
export interface GuestRowBatch {
  readonly area: GuestArea;
  readonly generation: string;
  readonly rows: readonly GuestRow[];
  /** Rows that the guest had to give up before they were fetched. */
  readonly lost: readonly GuestLoss[];
  /** Where the cursor stands after this batch. */
  readonly throughRowId: number;
}

export interface GuestLoss {
  readonly fromRowId: number;
  readonly throughRowId: number;
  readonly count: number;
  readonly reason: string;
}

/**
 * What the client of a guest channel tells, in this order: `setClock` once; `connected`, generations, rows and watermarks,
 * `disconnected`. All but `rows` return at once; the effect is durable with the next commit.
 */
export interface GuestListener {
  /** What corrects this guest's times from now on. */
  setClock(clock: GuestClock): void;
  /** Where to fetch from; null: from the beginning. */
  cursor(area: GuestArea): GuestCursor | null;
  /** The channel is open: the VM runs. */
  connected(): void;
  /**
   * The area's database has this generation from the next batch on. One that differs from the cursor's (lost, restored,
   * rolled back, cloned) ends the epoch, and the cursor starts over.
   */
  generation(area: GuestArea, generation: string): void;
  /**
   * Takes a batch; resolves once the rows, or the window state that took them in, are durable: acknowledge then.
   * Rows at or below the cursor are ignored. At most one batch for each area may be under way.
   * @throws OriginError `commit-failed` (retryable: fetch again from the cursor), `stopped`.
   */
  rows(batch: GuestRowBatch): Promise<void>;
  /** Nothing older than this, on the guest's clock, will come. */
  watermark(guestTimeUs: number): void;
  disconnected(): void;
}
