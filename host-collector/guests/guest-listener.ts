import type { Area, PerArea } from '../../common/channel/area.ts';
import type { GuestRow } from '../../common/channel/guest-row.ts';
import type { ClockStep, Cursor, LostRange } from '../../common/channel/message.ts';

/** Rows of one area, ascending by row id, following the batch before without a gap. */
export interface RowBatch {
  readonly area: Area;
  readonly rows: readonly GuestRow[];
  /** Where the reader stands with it: to be acknowledged once that is durable. */
  readonly cursor: Cursor;
}

export interface GuestConnection {
  readonly agentInstance: string;
  readonly bootId: string;
  readonly generations: PerArea<string>;
}

export interface Watermark {
  /** No row saved before this, by the guest's wall clock, will come. */
  readonly timeUs: number;
  /** Where the reader stands in the areas it registered; may be acknowledged like a batch's. */
  readonly cursors: Partial<PerArea<Cursor>>;
}

/**
 * Who takes a guest's rows. `rows`, `lost`, `watermark` and `generationChanged` are called one after the other, in the
 * order in which they hold, and only after the promise of the one before has resolved. `rows` and `lost` may fail:
 * what was rejected was not taken, and is fetched and given again.
 */
export interface GuestListener {
  rows(batch: RowBatch): void | Promise<void>;
  /** Rows of (fromRowId, throughRowId] that the guest had to prune; with `cursor` as in a batch. */
  lost(area: Area, range: LostRange, cursor: Cursor): void | Promise<void>;
  watermark(watermark: Watermark): void;
  /** The database is another one; its rows begin anew at 0. `previous` is null when none was known. */
  generationChanged(area: Area, previous: string | null, generation: string): void;
  clockStep(step: ClockStep): void;
  connected(connection: GuestConnection): void;
  disconnected(reason: string): void;
}
