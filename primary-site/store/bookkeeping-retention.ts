import type { Database } from '../../common/sqlite/database.ts';

/** Rows of one table that one pass looks at, so that it holds up arriving frames for milliseconds only. */
const rowsPerPassMax = 2_000;
/** Status frames kept of each epoch: a status stream speaks for ever, and only its newest word counts. */
const statusFramesMax = 1_000;
/** Epochs kept of each stream beside those with frames; far more than a stream log keeps (256). */
const epochsMax = 4_096;
/** Losses kept one by one; older ones remain in the totals. */
const reportedLossesMax = 10_000;
/** Declared ranges of lost frames; of an older one the producer says again that it is lost when it is asked. */
const lostRangesMax = 10_000;

/**
 * Bounds what the store keeps beside readings and data frames: windows without readings, data points without readings,
 * status frames, epochs, losses. Goes round the larger tables, a piece at each pass.
 */
export class BookkeepingRetention {
  readonly #database: Database;
  #windowId = 0;
  #seriesId = 0;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * One bounded pass, within the caller's transaction. Windows that end before `oldestMs` go once they have no readings.
   * Returns the ids of data points that were forgotten.
   */
  prune(oldestMs: number): readonly number[] {
    this.#pruneWindows(oldestMs);
    this.#pruneStatusFrames();
    this.#pruneEpochs();
    this.#pruneLosses(oldestMs);
    return this.#pruneSeries();
  }

  #pruneWindows(oldestMs: number): void {
    const throughId = this.#pieceEnd('windows', 'window_id', this.#windowId);
    this.#database
      .prepare<[number, number, number]>(
        `DELETE FROM windows WHERE window_id > ? AND window_id <= ? AND end_ms < ?
         AND NOT EXISTS (SELECT 1 FROM readings WHERE readings.window_id = windows.window_id)`,
      )
      .run(this.#windowId, throughId ?? Number.MAX_SAFE_INTEGER, oldestMs);
    this.#windowId = throughId ?? 0;
  }

  /** The newest of all stays: its id must not be given again while someone remembers it. */
  #pruneSeries(): readonly number[] {
    const throughId = this.#pieceEnd('series', 'series_id', this.#seriesId);
    const gone = this.#database
      .prepare<[number, number], { series_id: number }>(
        `DELETE FROM series WHERE series_id > ? AND series_id <= ?
         AND series_id < (SELECT max(series_id) FROM series)
         AND NOT EXISTS (SELECT 1 FROM readings WHERE readings.series_id = series.series_id)
         RETURNING series_id`,
      )
      .all(this.#seriesId, throughId ?? Number.MAX_SAFE_INTEGER);
    this.#seriesId = throughId ?? 0;
    return gone.map((row) => row.series_id);
  }

  #pruneStatusFrames(): void {
    this.#database
      .prepare(
        `DELETE FROM frames WHERE frame_id IN (
           SELECT frame_id FROM epochs JOIN frames USING (epoch_id) WHERE kind = 'status' AND seq <=
             (SELECT max(through_seq) FROM stored_ranges WHERE stored_ranges.epoch_id = epochs.epoch_id) - ${statusFramesMax}
           LIMIT ${rowsPerPassMax})`,
      )
      .run();
  }

  #pruneEpochs(): void {
    const old = this.#database
      .prepare<[], { epoch_id: number }>(
        `SELECT epoch_id FROM (SELECT epoch_id,
           row_number() OVER (PARTITION BY vm, kind ORDER BY epoch_id DESC) AS age FROM epochs
           WHERE NOT EXISTS (SELECT 1 FROM frames WHERE frames.epoch_id = epochs.epoch_id))
         WHERE age > ${epochsMax} LIMIT ${rowsPerPassMax}`,
      )
      .all();
    for (const { epoch_id: epochId } of old) {
      for (const table of ['stored_ranges', 'lost_ranges', 'content_keys', 'epochs']) {
        this.#database.prepare<[number]>(`DELETE FROM ${table} WHERE epoch_id = ?`).run(epochId);
      }
    }
  }

  #pruneLosses(oldestMs: number): void {
    this.#database
      .prepare<[number]>(
        `DELETE FROM reported_losses WHERE produced_at_us < ?
         OR loss_id <= (SELECT max(loss_id) FROM reported_losses) - ${reportedLossesMax}`,
      )
      .run(oldestMs * 1_000);
    this.#database
      .prepare(
        `DELETE FROM lost_ranges WHERE recorded_at_us <
           (SELECT recorded_at_us FROM lost_ranges ORDER BY recorded_at_us DESC LIMIT 1 OFFSET ${lostRangesMax})`,
      )
      .run();
  }

  /** The last of the next rows; undefined when there are no more: then the next pass begins anew. */
  #pieceEnd(table: 'windows' | 'series', idColumn: string, afterId: number): number | undefined {
    return this.#database
      .prepare<[number], { id: number }>(
        `SELECT ${idColumn} AS id FROM ${table} WHERE ${idColumn} > ? ORDER BY ${idColumn}
         LIMIT 1 OFFSET ${rowsPerPassMax - 1}`,
      )
      .get(afterId)?.id;
  }
}
