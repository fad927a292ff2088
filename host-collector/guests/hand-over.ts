import { type Area, areas, type PerArea } from '../../common/channel/area.ts';
import { type Cursor, type LostRange, type MessageOf } from '../../common/channel/message.ts';
import type { GuestListener } from './guest-listener.ts';

export type Cursors = Partial<PerArea<Cursor>>;

interface Step {
  /** Where the area stands after it. */
  readonly area: Area;
  readonly cursor: Cursor;
  /** True for an answer's last step, which frees a place in the queue. */
  readonly endsBatch: boolean;
  readonly rowCount: number;
  run(): void | Promise<void>;
}

/**
 * Gives the listener what was fetched, one thing at a time and in order, and each watermark once everything that it
 * speaks of was given. Holds at most as many answers as the caller checks {@link batchCount} for, and two watermarks:
 * the one waiting longest, which can't starve, and the newest.
 */
export class HandOver {
  readonly #listener: GuestListener;
  readonly #onTaken: (rowCount: number) => void;
  readonly #onRejected: (error: unknown, rowCount: number) => void;
  readonly #steps: Step[] = [];
  readonly #cursors: Partial<Record<Area, Cursor>>;
  #wanted: ReadonlySet<Area> = new Set();
  #isRunning = false;
  #batchCount = 0;
  #waitingWatermark: MessageOf<'watermark'> | undefined;
  #newestWatermark: MessageOf<'watermark'> | undefined;

  /** `onTaken` after an answer was taken; `onRejected` when the listener refused one and the queue of so many rows was emptied. */
  constructor(
    listener: GuestListener,
    resumeFrom: Cursors,
    onTaken: (rowCount: number) => void,
    onRejected: (error: unknown, rowCount: number) => void,
  ) {
    this.#listener = listener;
    this.#cursors = { ...resumeFrom };
    this.#onTaken = onTaken;
    this.#onRejected = onRejected;
  }

  /** Answers that wait or are being taken. */
  get batchCount(): number {
    return this.#batchCount;
  }

  /** Where the listener stands, with everything that it took. */
  get cursors(): Cursors {
    return { ...this.#cursors };
  }

  generation(area: Area, previous: string | null, generation: string): void {
    this.forgetWatermarks();
    this.#push({
      area,
      cursor: { generation, rowId: 0 },
      endsBatch: false,
      rowCount: 0,
      run: () => {
        this.#listener.generationChanged(area, previous, generation);
      },
    });
  }

  /** An answer whose rows and lost ranges all lie after `fromRowId`; interleaves them by row id. */
  batch(answer: MessageOf<'rows'>, fromRowId: number): void {
    const { area, generation, rows, throughRowId } = answer;
    const steps: Step[] = [];
    let rowIndex = 0;
    const addRows = (untilRowId: number, cursorRowId: number, endsBatch: boolean): void => {
      const begin = rowIndex;
      while ((rows[rowIndex]?.rowId ?? Infinity) <= untilRowId) rowIndex += 1;
      const given = rows.slice(begin, rowIndex);
      const rowCount = given.length;
      const cursor = { generation, rowId: cursorRowId };
      const run = (): void | Promise<void> =>
        rowCount === 0 ? undefined : this.#listener.rows({ area, rows: given, cursor });
      if (rowCount > 0 || endsBatch) steps.push({ area, cursor, endsBatch, rowCount, run });
    };
    for (const whole of answer.lost) {
      const range = clip(whole, fromRowId);
      addRows(range.fromRowId, range.fromRowId, false);
      const cursor = { generation, rowId: range.throughRowId };
      const run = (): void | Promise<void> => this.#listener.lost(area, range, cursor);
      steps.push({ area, cursor, endsBatch: false, rowCount: 0, run });
    }
    addRows(throughRowId, throughRowId, true);
    this.#batchCount += 1;
    this.#push(...steps);
  }

  /** Nothing that the listener wants lies between its cursor and this one; while no batch is in hand. */
  passed(area: Area, cursor: Cursor): void {
    this.#cursors[area] = cursor;
  }

  watermark(watermark: MessageOf<'watermark'>, wanted: ReadonlySet<Area>): void {
    this.#wanted = wanted;
    if (this.#waitingWatermark === undefined) this.#waitingWatermark = watermark;
    else this.#newestWatermark = watermark;
    this.#giveWatermarks();
  }

  /** Gives the watermarks that hold now. */
  #giveWatermarks(): void {
    for (;;) {
      const watermark = this.#waitingWatermark;
      if (watermark === undefined || this.#steps.length > 0 || this.#isRunning) return;
      const holds = areas.every(
        (area) =>
          !this.#wanted.has(area) ||
          (this.#cursors[area]?.rowId ?? -1) >= watermark.areas[area].matchedRowId,
      );
      if (!holds) return;
      this.#waitingWatermark = this.#newestWatermark;
      this.#newestWatermark = undefined;
      this.#listener.watermark({ timeUs: watermark.timeUs, cursors: this.cursors });
    }
  }

  /** Watermarks of a session that is over say nothing about the next. */
  forgetWatermarks(): void {
    this.#waitingWatermark = undefined;
    this.#newestWatermark = undefined;
  }

  #push(...steps: readonly Step[]): void {
    this.#steps.push(...steps);
    this.#run();
  }

  #run(): void {
    while (!this.#isRunning) {
      const step = this.#steps.shift();
      if (step === undefined) return;
      this.#isRunning = true;
      let taken: void | Promise<void>;
      try {
        taken = step.run();
      } catch (error) {
        this.#reject(step, error);
        return;
      }
      if (taken === undefined) {
        this.#finish(step);
        continue;
      }
      void this.#finishLater(step, taken);
    }
  }

  async #finishLater(step: Step, taken: Promise<void>): Promise<void> {
    try {
      await taken;
    } catch (error) {
      this.#reject(step, error);
      return;
    }
    this.#finish(step);
    this.#run();
  }

  #finish(step: Step): void {
    this.#isRunning = false;
    this.#cursors[step.area] = step.cursor;
    if (step.endsBatch) this.#batchCount -= 1;
    if (this.#steps.length === 0) this.#giveWatermarks();
    if (step.rowCount > 0 || step.endsBatch) this.#onTaken(step.rowCount);
  }

  #reject(refused: Step, error: unknown): void {
    const rowCount = [refused, ...this.#steps].reduce((sum, step) => sum + step.rowCount, 0);
    this.#steps.length = 0;
    this.#batchCount = 0;
    this.#isRunning = false;
    this.#onRejected(error, rowCount);
  }
}

/** What of the range the reader has not passed; of a part's rows only an upper bound is known. */
function clip(range: LostRange, fromRowId: number): LostRange {
  if (range.fromRowId >= fromRowId) return range;
  const count = Math.min(range.count, range.throughRowId - fromRowId);
  return { ...range, fromRowId, count };
}
