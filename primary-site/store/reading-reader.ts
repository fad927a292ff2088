import type { Database, Statement } from '../../common/sqlite/database.ts';
import { compileDataPointPattern } from '../../common/wire/data-point.ts';
import type { PredicateState, Window } from '../../common/wire/delivery.ts';
import type { Format } from '../../common/wire/monitoring-specifier.ts';
import type { Value } from '../../common/wire/value.ts';

/** A measurement, or one window's processed value, as it is stored. */
export interface Reading {
  /** Rises in order of arrival, never given twice. */
  readonly position: number;
  readonly vm: string;
  readonly dataPoint: string;
  readonly timeUs: number;
  /** Half the width of the interval that the true time lies in; null where it is unknown: of processed values. */
  readonly uncertaintyUs: number | null;
  readonly value: Value;
  readonly held: boolean;
  readonly specifierId: string;
  readonly format: Format;
  readonly window: Window | null;
  /** 0 without a window. */
  readonly revision: number;
  /** Measurements that took part; null for raw ones. */
  readonly count: number | null;
  /** Measurements that are no numbers; null for raw ones. */
  readonly skippedCount: number | null;
  /** How many of `count` repeat an older value; null for raw ones. */
  readonly heldCount: number | null;
  /** Bound of the relative error of a median over very many values; 0: exact. */
  readonly relativeErrorMax: number;
  /** What the predicate said; null without one. */
  readonly predicateState: PredicateState | null;
}

/** Which readings. Absent: no restriction. */
export interface ReadingFilter {
  readonly pattern: string;
  readonly vm?: string;
  readonly sinceUs?: number;
  /** Exclusive. */
  readonly untilUs?: number;
}

export interface DataPointEntry {
  readonly vm: string;
  readonly dataPoint: string;
  readonly newestTimeUs: number | null;
}

interface Series {
  readonly series_id: number;
  readonly vm: string;
  readonly data_point: string;
  readonly specifier_id: string;
  readonly format: Format;
}

interface Row {
  readonly position: bigint;
  readonly series_id: bigint;
  readonly time_us: bigint;
  readonly uncertainty_us: bigint;
  readonly held: bigint;
  readonly count: bigint | null;
  readonly value: Value;
  readonly start_ms: bigint | null;
  readonly end_ms: bigint | null;
  readonly revision: bigint | null;
  readonly skipped_count: bigint | null;
  readonly held_count: bigint | null;
  readonly relative_error_max: number | null;
  readonly predicate_state: PredicateState | null;
}

const columns = `position, series_id, time_us, uncertainty_us, held, count, value, start_ms, end_ms, revision,
  skipped_count, held_count, relative_error_max, predicate_state
  FROM readings LEFT JOIN windows USING (window_id)`;

/** Reads the store on the connection that writes it, so everything that is committed is seen. */
export class ReadingReader {
  readonly #database: Database;
  readonly #series = new Map<number, Series>();
  readonly #ofSeries: Statement<[number, number, number, number], Row>;
  readonly #after: Statement<[number, number], Row>;
  readonly #seriesAfter: Statement<[number], Series>;
  #newestSeriesId = 0;

  constructor(database: Database) {
    this.#database = database;
    this.#ofSeries = database.prepare<[number, number, number, number], Row>(
      `SELECT ${columns} WHERE series_id = ? AND time_us >= ? AND time_us < ?
       ORDER BY time_us DESC, position DESC LIMIT ?`,
    );
    this.#after = database.prepare<[number, number], Row>(
      `SELECT ${columns} WHERE position > ? ORDER BY position LIMIT ?`,
    );
    this.#seriesAfter = database.prepare(
      'SELECT series_id, vm, data_point, specifier_id, format FROM series WHERE series_id > ?',
    );
    for (const statement of [this.#ofSeries, this.#after]) statement.safeIntegers();
  }

  /** The newest `limit` that match, by time, ascending; and whether there are more. */
  query(
    filter: ReadingFilter,
    limit: number,
  ): { readonly readings: Reading[]; readonly isTruncated: boolean } {
    const sinceUs = filter.sinceUs ?? 0;
    const untilUs = filter.untilUs ?? Number.MAX_SAFE_INTEGER;
    let newest: Reading[] = [];
    for (const series of this.#matching(filter)) {
      const rows = this.#ofSeries.all(series.series_id, sinceUs, untilUs, limit + 1);
      newest.push(...rows.map((row) => readingOf(row, series)));
      if (newest.length > (limit + 1) * 8) newest = newestOf(newest, limit + 1);
    }
    newest = newestOf(newest, limit + 1);
    return {
      readings: newest.slice(0, limit).toReversed(),
      isTruncated: newest.length > limit,
    };
  }

  /**
   * Looks at `rowsMax` readings after `position`, in order of arrival, and returns those that match, and the position to
   * go on from. No reading ever appears at or before a position that was looked at.
   */
  after(
    position: number,
    matches: (reading: Reading) => boolean,
    rowsMax: number,
  ): { readonly readings: Reading[]; readonly nextPosition: number; readonly atEnd: boolean } {
    const rows = this.#after.all(position, rowsMax);
    const readings: Reading[] = [];
    for (const row of rows) {
      const series = this.#seriesOf(Number(row.series_id));
      if (series === undefined) continue;
      const reading = readingOf(row, series);
      if (matches(reading)) readings.push(reading);
    }
    const last = rows.at(-1);
    return {
      readings,
      nextPosition: last === undefined ? position : Number(last.position),
      atEnd: rows.length < rowsMax,
    };
  }

  /** The position before the first match of `filter`: where a watcher with history begins. */
  positionBefore(filter: ReadingFilter & { readonly sinceUs: number }): number {
    const first = this.#database.prepare<[number, number], { position: number | null }>(
      'SELECT min(position) AS position FROM readings WHERE series_id = ? AND time_us >= ?',
    );
    const positions = this.#matching(filter)
      .map((series) => first.get(series.series_id, filter.sinceUs)?.position)
      .filter((position) => typeof position === 'number');
    return positions.length === 0
      ? this.newestPosition()
      : positions.reduce((least, position) => Math.min(least, position)) - 1;
  }

  newestPosition(): number {
    const row = this.#database
      .prepare<[], { position: number | null }>('SELECT max(position) AS position FROM readings')
      .get();
    return row?.position ?? 0;
  }

  /** Every data point that is known, with the time of its newest reading that is still here. */
  dataPoints(filter: ReadingFilter): DataPointEntry[] {
    const newest = this.#database.prepare<[number], { time_us: number | null }>(
      'SELECT max(time_us) AS time_us FROM readings WHERE series_id = ?',
    );
    const entries = new Map<string, DataPointEntry>();
    for (const { series_id: seriesId, vm, data_point: dataPoint } of this.#matching(filter)) {
      const key = `${vm} ${dataPoint}`;
      const timeUs = newest.get(seriesId)?.time_us ?? null;
      const known = entries.get(key)?.newestTimeUs ?? null;
      const newestTimeUs = timeUs === null || (known !== null && known > timeUs) ? known : timeUs;
      entries.set(key, { vm, dataPoint, newestTimeUs });
    }
    return [...entries.entries()]
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
      .map(([, entry]) => entry);
  }

  forgetSeries(seriesIds: readonly number[]): void {
    for (const seriesId of seriesIds) this.#series.delete(seriesId);
  }

  #matching(filter: ReadingFilter): Series[] {
    this.#loadNewSeries();
    const matches = compileDataPointPattern(filter.pattern);
    return [...this.#series.values()].filter(
      (series) => (filter.vm ?? series.vm) === series.vm && matches(series.data_point),
    );
  }

  #seriesOf(seriesId: number): Series | undefined {
    if (!this.#series.has(seriesId)) this.#loadNewSeries();
    return this.#series.get(seriesId);
  }

  #loadNewSeries(): void {
    for (const series of this.#seriesAfter.all(this.#newestSeriesId)) {
      this.#series.set(series.series_id, series);
      this.#newestSeriesId = Math.max(this.#newestSeriesId, series.series_id);
    }
  }
}

function newestOf(readings: readonly Reading[], count: number): Reading[] {
  return readings
    .toSorted((left, right) => right.timeUs - left.timeUs || right.position - left.position)
    .slice(0, count);
}

function readingOf(row: Row, series: Series): Reading {
  return {
    position: Number(row.position),
    vm: series.vm,
    dataPoint: series.data_point,
    timeUs: Number(row.time_us),
    // A delivery says none of its value: the column has a number all the same, as it may not be NULL.
    uncertaintyUs: series.format === 'raw' ? Number(row.uncertainty_us) : null,
    value: asValue(row.value),
    held: row.held === 1n,
    specifierId: series.specifier_id,
    format: series.format,
    window:
      row.start_ms === null || row.end_ms === null
        ? null
        : { startMs: Number(row.start_ms), endMs: Number(row.end_ms) },
    revision: row.revision === null ? 0 : Number(row.revision),
    count: numberOf(row.count),
    skippedCount: numberOf(row.skipped_count),
    heldCount: numberOf(row.held_count),
    relativeErrorMax: row.relative_error_max ?? 0,
    predicateState: row.predicate_state,
  };
}

function numberOf(integer: bigint | null): number | null {
  return integer === null ? null : Number(integer);
}

function asValue(value: Value): Value {
  if (typeof value !== 'bigint') return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
