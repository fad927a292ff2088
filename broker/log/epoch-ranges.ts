import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { StoredRange } from '../ports.ts';
import { RangeSet, type SeqRange } from '../range-set.ts';
import { epochKey } from '../stream-key.ts';

/** Where a store keeps its epochs and ranges; names are our own constants, never input. */
export interface RangeTables {
  /** Columns epoch_id, vm, kind, number, nonce. */
  readonly epochs: string;
  /** Inserts an epoch by (vm, kind, number, nonce) unless it is there. */
  readonly insertEpoch: string;
  /** Columns epoch_id, from_seq, through_seq: what was ever made durable, retention or not. */
  readonly stored: string;
  /** Columns epoch_id, from_seq, through_seq, reason and {@link RangeTables.lostAtUs}. */
  readonly lost: string;
  readonly lostAtUs: string;
}

interface Entry {
  readonly epochId: number;
  readonly ranges: RangeSet;
}

interface LostRow extends SeqRange {
  readonly reason: string;
  readonly atUs: number;
}

/**
 * Which frames a store that others number has ever had, and which it was told are lost. Ranges are cached; after a
 * transaction that failed, `forget` makes the next call read them again.
 */
export class EpochRanges {
  readonly #database: Database;
  readonly #tables: RangeTables;
  readonly #byKey = new Map<string, Entry>();
  readonly #byId = new Map<number, Entry>();
  /** Seqs added in the open transaction, by epoch. */
  readonly #added = new Map<number, Set<number>>();
  readonly #dropRanges: Statement<[number, number, number]>;
  readonly #putRange: Statement<[number, number, number]>;
  /** Run for each epoch of each commit. */
  readonly #readLost: Statement<[number], LostRow>;

  constructor(database: Database, tables: RangeTables) {
    this.#database = database;
    this.#tables = tables;
    this.#dropRanges = database.prepare(
      `DELETE FROM ${tables.stored} WHERE epoch_id = ? AND from_seq > ? AND from_seq <= ?`,
    );
    this.#putRange = database.prepare(
      `INSERT OR REPLACE INTO ${tables.stored} (epoch_id, from_seq, through_seq) VALUES (?, ?, ?)`,
    );
    this.#readLost = database.prepare(
      `SELECT from_seq AS fromSeq, through_seq AS throughSeq, reason, ${tables.lostAtUs} AS atUs
       FROM ${tables.lost} WHERE epoch_id = ? ORDER BY from_seq`,
    );
  }

  /** The row id of an epoch, which is made when it is new. */
  idOf(stream: StreamId, epoch: Epoch): number {
    return this.#entry(stream, epoch).epochId;
  }

  /** Whether the epoch is in memory. */
  knows(stream: StreamId, epoch: Epoch): boolean {
    return this.#byKey.has(epochKey(stream, epoch));
  }

  /** False when the frame is, or was, here already. */
  addSeq(epochId: number, seq: number): boolean {
    const entry = this.#byId.get(epochId);
    if (entry?.ranges.add(seq) !== true) return false;
    const added = this.#added.get(epochId) ?? new Set();
    this.#added.set(epochId, added.add(seq));
    return true;
  }

  /** Writes the ranges that the transaction changed. A frame that was declared lost withdraws the declaration. */
  writeRanges(): void {
    for (const [epochId, seqs] of this.#added) {
      const ranges = this.#byId.get(epochId)?.ranges.ranges ?? [];
      for (const range of ranges) {
        if (!containsAny(range, seqs)) continue;
        this.#dropRanges.run(epochId, range.fromSeq, range.throughSeq);
        this.#putRange.run(epochId, range.fromSeq, range.throughSeq);
      }
      this.#withdrawLost(epochId, seqs);
    }
    this.#added.clear();
  }

  forget(): void {
    this.#byKey.clear();
    this.#byId.clear();
    this.#added.clear();
  }

  /** What was ever made durable of `stream`, ascending in each epoch. */
  stored(stream: StreamId): StoredRange[] {
    return this.#database
      .prepare<
        [string, string],
        { number: number; nonce: string; fromSeq: number; throughSeq: number }
      >(
        `SELECT number, nonce, from_seq AS fromSeq, through_seq AS throughSeq
         FROM ${this.#tables.stored} JOIN ${this.#tables.epochs} USING (epoch_id)
         WHERE vm = ? AND kind = ? ORDER BY epoch_id, from_seq`,
      )
      .all(stream.vm, stream.kind)
      .map(({ number, nonce, ...range }) => ({ epoch: { number, nonce }, ...range }));
  }

  declareLost(
    stream: StreamId,
    lost: SeqRange & { readonly epoch: Epoch; readonly reason: string },
    atUs: number,
  ): void {
    this.#putLost(this.idOf(stream, lost.epoch), { ...lost, atUs });
  }

  /** Ranges of an epoch that were declared lost, ascending. */
  lost(epochId: number): LostRow[] {
    return this.#readLost.all(epochId);
  }

  /** The declared ranges that a frame came for are cut around it. */
  #withdrawLost(epochId: number, seqs: ReadonlySet<number>): void {
    for (const row of this.lost(epochId)) {
      if (!containsAny(row, seqs)) continue;
      const left = new RangeSet([row]);
      for (const seq of seqs) left.deleteRange(seq, seq);
      this.#database
        .prepare<[number, number]>(
          `DELETE FROM ${this.#tables.lost} WHERE epoch_id = ? AND from_seq = ?`,
        )
        .run(epochId, row.fromSeq);
      for (const part of left.ranges) this.#putLost(epochId, { ...row, ...part });
    }
  }

  #putLost(epochId: number, { fromSeq, throughSeq, reason, atUs }: LostRow): void {
    this.#database
      .prepare<[number, number, number, string, number]>(
        `INSERT OR REPLACE INTO ${this.#tables.lost}
         (epoch_id, from_seq, through_seq, reason, ${this.#tables.lostAtUs}) VALUES (?, ?, ?, ?, ?)`,
      )
      .run(epochId, fromSeq, throughSeq, reason, atUs);
  }

  #entry(stream: StreamId, epoch: Epoch): Entry {
    const key = epochKey(stream, epoch);
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const identity = [stream.vm, stream.kind, epoch.number, epoch.nonce] as const;
    this.#database
      .prepare<[string, string, number, string]>(this.#tables.insertEpoch)
      .run(...identity);
    const row = this.#database
      .prepare<[string, string, number, string], { epoch_id: number }>(
        `SELECT epoch_id FROM ${this.#tables.epochs} WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?`,
      )
      .get(...identity);
    const epochId = row?.epoch_id ?? 0;
    const ranges = this.#database
      .prepare<[number], SeqRange>(
        `SELECT from_seq AS fromSeq, through_seq AS throughSeq FROM ${this.#tables.stored} WHERE epoch_id = ?`,
      )
      .all(epochId);
    const entry = { epochId, ranges: new RangeSet(ranges) };
    this.#byKey.set(key, entry);
    this.#byId.set(epochId, entry);
    return entry;
  }
}

function containsAny(range: SeqRange, seqs: ReadonlySet<number>): boolean {
  for (const seq of seqs) {
    if (range.fromSeq <= seq && seq <= range.throughSeq) return true;
  }
  return false;
}
