import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type {
  Delivery,
  Measurement,
  PredicateState,
  ProcessedDelivery,
  RawDelivery,
} from '../../common/wire/delivery.ts';
import type { Value } from '../../common/wire/value.ts';

interface WindowRow {
  readonly window_id: number;
  readonly revision: number;
}

/** What a processed delivery says beside its value. */
interface Processing {
  readonly count: number;
  readonly skippedCount: number;
  readonly heldCount: number;
  readonly relativeErrorMax: number | null;
}

type ReadingRow = [
  number,
  number,
  number,
  number,
  0 | 1,
  number | null,
  number | null,
  Value,
  number | null,
  number | null,
  number | null,
  string | null,
];

/** What the column holds where nothing is known: readings of processed values give null. */
const notKnownUs = 0;

/**
 * Decoded deliveries as rows of `readings`. Caches ids of series; after a transaction that failed, `forget` drops what
 * it may have learnt in it.
 */
export class ReadingWriter {
  readonly #database: Database;
  readonly #seriesMax: number;
  readonly #counters: StageCounters;
  readonly #seriesIds = new Map<string, number>();
  readonly #insert: Statement<ReadingRow>;
  readonly #findWindow: Statement<[string, string, string, number, number], WindowRow>;
  readonly #insertWindow: Statement<[string, string, string, number, number, number]>;
  #lastPosition: number;
  #acceptedInTransaction = 0;
  #droppedInTransaction = 0;

  constructor(database: Database, seriesMax: number, counters: StageCounters) {
    this.#database = database;
    this.#seriesMax = seriesMax;
    this.#counters = counters;
    this.#insert = database.prepare(
      `INSERT INTO readings (position, series_id, time_us, uncertainty_us, held, window_id, count, value,
         skipped_count, held_count, relative_error_max, predicate_state)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#findWindow = database.prepare(
      `SELECT window_id, revision FROM windows
       WHERE vm = ? AND specifier_id = ? AND subject = ? AND start_ms = ? AND end_ms = ?`,
    );
    this.#insertWindow = database.prepare(
      `INSERT INTO windows (vm, specifier_id, subject, start_ms, end_ms, revision)
       VALUES (?, ?, ?, ?, ?, ?)`,
    );
    this.#lastPosition = this.#readState();
  }

  /** Position of the newest reading; 0 before the first. Never given twice, whatever retention removes. */
  get lastPosition(): number {
    return this.#lastPosition;
  }

  write(vm: string, delivery: Delivery): void {
    if (delivery.kind === 'raw') this.#writeRaw(vm, delivery);
    else this.#writeProcessed(vm, delivery);
  }

  /** The transaction is about to commit. */
  finish(): void {
    this.#counters.accepted += this.#acceptedInTransaction;
    this.#counters.forwarded += this.#acceptedInTransaction - this.#droppedInTransaction;
    this.#counters.dropped += this.#droppedInTransaction;
    this.#acceptedInTransaction = 0;
    this.#droppedInTransaction = 0;
  }

  forget(): void {
    this.#acceptedInTransaction = 0;
    this.#droppedInTransaction = 0;
    this.#lastPosition = this.#readState();
  }

  forgetSeries(seriesIds: readonly number[]): void {
    const gone = new Set(seriesIds);
    for (const [key, seriesId] of this.#seriesIds) {
      if (gone.has(seriesId)) this.#seriesIds.delete(key);
    }
  }

  #writeRaw(vm: string, delivery: RawDelivery): void {
    const windowId = this.#windowOf(vm, delivery, 'raw');
    if (windowId === undefined) return;
    for (const measurement of delivery.measurements) {
      const seriesId = this.#seriesId(vm, measurement.dataPoint, delivery.specifierId, 'raw');
      this.#insertReading(seriesId, measurement, windowId, null, delivery.predicateState);
    }
  }

  #writeProcessed(vm: string, delivery: ProcessedDelivery): void {
    const { dataPoint, specifierId, format, timeUs, value, predicateState } = delivery;
    const windowId = this.#windowOf(vm, delivery, `${format} ${dataPoint}`);
    if (windowId === undefined) return;
    const seriesId = this.#seriesId(vm, dataPoint, specifierId, format);
    const measured = { timeUs, uncertaintyUs: notKnownUs, held: false, value };
    const processing = {
      count: delivery.count,
      skippedCount: delivery.skippedCount,
      heldCount: delivery.heldCount ?? 0,
      relativeErrorMax: delivery.relativeErrorMax ?? null,
    };
    this.#insertReading(seriesId, measured, windowId, processing, predicateState);
  }

  #insertReading(
    seriesId: number | undefined,
    measured: Omit<Measurement, 'dataPoint'>,
    windowId: number | null,
    processing: Processing | null,
    predicateState: PredicateState | null,
  ): void {
    this.#acceptedInTransaction += 1;
    if (seriesId === undefined) {
      this.#droppedInTransaction += 1;
      return;
    }
    this.#lastPosition += 1;
    this.#insert.run(
      this.#lastPosition,
      seriesId,
      measured.timeUs,
      measured.uncertaintyUs,
      measured.held ? 1 : 0,
      windowId,
      processing?.count ?? null,
      measured.value,
      processing?.skippedCount ?? null,
      processing?.heldCount ?? null,
      processing?.relativeErrorMax ?? null,
      predicateState,
    );
  }

  /**
   * The window's row; null without a window, undefined when a higher revision is here already. Deliveries of one
   * revision add up, a higher one replaces what is here.
   */
  #windowOf(vm: string, delivery: Delivery, subject: string): number | null | undefined {
    const { window, revision, specifierId } = delivery;
    if (window === null) return null;
    const { startMs, endMs } = window;
    const known = this.#findWindow.get(vm, specifierId, subject, startMs, endMs);
    if (known === undefined) {
      const inserted = this.#insertWindow.run(vm, specifierId, subject, startMs, endMs, revision);
      return Number(inserted.lastInsertRowid);
    }
    if (known.revision > revision) return undefined;
    if (known.revision < revision) {
      this.#database
        .prepare<[number]>('DELETE FROM readings WHERE window_id = ?')
        .run(known.window_id);
      this.#database
        .prepare<[number, number]>('UPDATE windows SET revision = ? WHERE window_id = ?')
        .run(revision, known.window_id);
    }
    return known.window_id;
  }

  /** undefined beyond the bound. */
  #seriesId(
    vm: string,
    dataPoint: string,
    specifierId: string,
    format: string,
  ): number | undefined {
    const key = `${vm} ${specifierId} ${format} ${dataPoint}`;
    const known = this.#seriesIds.get(key);
    if (known !== undefined) return known;
    if (this.#seriesIds.size >= this.#seriesMax) return undefined;
    const inserted = this.#database
      .prepare<[string, string, string, string]>(
        'INSERT INTO series (vm, data_point, specifier_id, format) VALUES (?, ?, ?, ?)',
      )
      .run(vm, dataPoint, specifierId, format);
    const seriesId = Number(inserted.lastInsertRowid);
    this.#seriesIds.set(key, seriesId);
    return seriesId;
  }

  /** Fills the cache of series, and returns the last position that was given. */
  #readState(): number {
    this.#seriesIds.clear();
    const series = this.#database
      .prepare<
        [],
        { series_id: number; vm: string; data_point: string; specifier_id: string; format: string }
      >('SELECT series_id, vm, data_point, specifier_id, format FROM series')
      .all();
    for (const row of series) {
      const key = `${row.vm} ${row.specifier_id} ${row.format} ${row.data_point}`;
      this.#seriesIds.set(key, row.series_id);
    }
    const last = this.#database
      .prepare<[], { position: number }>(
        `SELECT max((SELECT coalesce(max(position), 0) FROM readings),
                    (SELECT coalesce(max(last_position), 0) FROM (SELECT last_position FROM frames ORDER BY frame_id DESC LIMIT 1))) AS position`,
      )
      .get();
    return last?.position ?? 0;
  }
}
