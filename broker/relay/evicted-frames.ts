import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';
import type { GivenUpFrames } from '../log/frame-log.ts';
import { RangeSet, type SeqRange } from '../range-set.ts';

/** Frames of an epoch that were here, and why they are not any more. */
export interface EvictedRange extends SeqRange {
  readonly reason: LossReason;
}

/**
 * What a relay had and has no more, though it may be asked for it: not lost as long as the neighbour that it came from
 * may have it. When it is asked for it is fetched again; only what that neighbour declares lost is lost.
 * Every call but {@link EvictedFrames.ranges} runs inside the caller's transaction.
 */
export class EvictedFrames implements GivenUpFrames {
  readonly #database: Database;
  readonly #read: Statement<[number, number, number], EvictedRange>;
  readonly #drop: Statement<[number, number]>;
  readonly #put: Statement<[number, number, number, LossReason]>;

  constructor(database: Database) {
    this.#database = database;
    this.#read = database.prepare(
      `SELECT from_seq AS fromSeq, through_seq AS throughSeq, reason FROM relay_evicted
       WHERE epoch_id = ? AND through_seq >= ? AND from_seq <= ? ORDER BY from_seq`,
    );
    this.#drop = database.prepare('DELETE FROM relay_evicted WHERE epoch_id = ? AND from_seq = ?');
    this.#put = database.prepare('INSERT OR REPLACE INTO relay_evicted VALUES (?, ?, ?, ?)');
  }

  note(epochId: number, { fromSeq, throughSeq }: SeqRange, reason: LossReason): void {
    this.#unstore(epochId, { fromSeq, throughSeq });
    // What borders on it for the same reason is one range with it.
    const around = this.#read
      .all(epochId, fromSeq - 1, throughSeq + 1)
      .filter((range) => range.reason === reason);
    for (const range of around) this.#drop.run(epochId, range.fromSeq);
    const first = Math.min(fromSeq, ...around.map((range) => range.fromSeq));
    const last = Math.max(throughSeq, ...around.map((range) => range.throughSeq));
    this.#put.run(epochId, first, last, reason);
  }

  /** Parts of `range`, ascending. */
  ranges(epochId: number, range: SeqRange): readonly EvictedRange[] {
    return this.#read
      .all(epochId, range.fromSeq, range.throughSeq)
      .map(({ fromSeq, throughSeq, reason }) => ({
        fromSeq: Math.max(fromSeq, range.fromSeq),
        throughSeq: Math.min(throughSeq, range.throughSeq),
        reason,
      }));
  }

  /** The frames are here again, or lost. */
  forget(epochId: number, range: SeqRange): void {
    for (const evicted of this.#read.all(epochId, range.fromSeq, range.throughSeq)) {
      const left = new RangeSet([evicted]);
      left.deleteRange(range.fromSeq, range.throughSeq);
      this.#drop.run(epochId, evicted.fromSeq);
      for (const part of left.ranges) {
        this.#put.run(epochId, part.fromSeq, part.throughSeq, evicted.reason);
      }
    }
  }

  /** They do not count as stored any longer: what comes again is new. */
  #unstore(epochId: number, range: SeqRange): void {
    const stored = this.#database
      .prepare<[number, number, number], SeqRange>(
        `SELECT from_seq AS fromSeq, through_seq AS throughSeq FROM relay_stored_ranges
         WHERE epoch_id = ? AND through_seq >= ? AND from_seq <= ?`,
      )
      .all(epochId, range.fromSeq, range.throughSeq);
    for (const each of stored) {
      const left = new RangeSet([each]);
      left.deleteRange(range.fromSeq, range.throughSeq);
      this.#database
        .prepare<[number, number]>(
          'DELETE FROM relay_stored_ranges WHERE epoch_id = ? AND from_seq = ?',
        )
        .run(epochId, each.fromSeq);
      for (const { fromSeq, throughSeq } of left.ranges) {
        this.#database
          .prepare<[number, number, number]>('INSERT INTO relay_stored_ranges VALUES (?, ?, ?)')
          .run(epochId, fromSeq, throughSeq);
      }
    }
  }
}
