import type { Area } from '../../common/channel/area.ts';
import type { GuestRow } from '../../common/channel/guest-row.ts';
import type { ClockStep, Cursor, LostRange } from '../../common/channel/message.ts';
import type {
  GuestConnection,
  GuestListener,
  RowBatch,
  Watermark,
} from '../../host-collector/guests/guest-listener.ts';

/** Keeps what a guest channel client gives, in order. */
export class RecordingGuestListener implements GuestListener {
  readonly given: GuestRow[] = [];
  readonly batches: RowBatch[] = [];
  readonly events: string[] = [];
  readonly watermarks: Watermark[] = [];
  readonly lostRanges: LostRange[] = [];
  readonly clockSteps: ClockStep[] = [];
  readonly connections: GuestConnection[] = [];
  disconnectCount = 0;
  /** Called with each batch; what it returns is what `rows` returns. */
  onRows: ((batch: RowBatch) => void | Promise<void>) | undefined;

  /** Called with each lost range; what it returns is what `lost` returns. */
  onLost: ((range: LostRange) => Promise<void>) | undefined;

  rows(batch: RowBatch): void | Promise<void> {
    const taken = this.onRows?.(batch);
    const keep = (): void => {
      this.batches.push(batch);
      this.given.push(...batch.rows);
      this.events.push(`rows ${batch.area} ${batch.rows.map(({ rowId }) => rowId).join(',')}`);
    };
    return taken === undefined ? keep() : taken.then(keep);
  }

  lost(area: Area, range: LostRange, cursor: Cursor): void | Promise<void> {
    const keep = (): void => {
      this.lostRanges.push(range);
      this.events.push(`lost ${area} ${range.fromRowId}-${cursor.rowId}`);
    };
    return this.onLost === undefined ? keep() : this.onLost(range).then(keep);
  }

  watermark(watermark: Watermark): void {
    this.watermarks.push(watermark);
    if (this.watermarks.length > 1_000) this.watermarks.shift();
  }

  generationChanged(area: Area, previous: string | null, generation: string): void {
    this.events.push(`generation ${area} ${previous} -> ${generation}`);
  }

  clockStep(step: ClockStep): void {
    this.clockSteps.push(step);
  }

  connected(connection: GuestConnection): void {
    this.connections.push(connection);
  }

  disconnected(): void {
    this.disconnectCount += 1;
  }

  rowIds(area: Area = 'unencrypted'): number[] {
    return this.given.filter((row) => row.area === area).map(({ rowId }) => rowId);
  }
}
