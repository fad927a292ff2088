import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';
import type { LostFrames, StoredRange } from '../ports.ts';
import { RangeSet, type SeqRange } from '../range-set.ts';
import { epochKey } from '../stream-key.ts';
import { LossEvidence } from './loss-evidence.ts';

/** Where a store keeps its epochs and ranges; names are our own constants, never input. */
export interface RangeTables {
  /** Columns epoch_id, vm, kind, number, nonce. */
  readonly epochs: string;
  /** Inserts an epoch by (vm, kind, number, nonce) unless it is there. */
  readonly insertEpoch: string;
  /** Columns epoch_id, from_seq, through_seq: what was ever made durable, retention or not. */
  readonly stored: string;
  /** Columns epoch_id, from_seq, through_seq, reason, declared_by, evidence_id and {@link RangeTables.lostAtUs}. */
  readonly lost: string;
  readonly lostAtUs: string;
}

interface Entry {
  readonly epochId: number;
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly ranges: RangeSet;
}

interface LostRow extends SeqRange {
  readonly reason: LossReason;
  readonly atUs: number;
  readonly declaredBy: string | null;
  /** The row of the signed declaration; null: not signed. */
  readonly evidenceId: number | null;
}

/** Frames that were declared lost and came after all, in one commit. */
export interface ReturnedFrames {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly frameCount: number;
  readonly declaredBy: string | null;
}

/** Ranges of one epoch that are lost; a neighbour that declares more of them in pieces is not believed any further. */
const lostRangesMax = 1_024;

export type LossesErrorCode = 'too-many-losses';

/** A declaration that is not taken. */
export class LossesError extends OperatingError<LossesErrorCode> {
  override readonly name = 'LossesError';
}

/**
 * Which frames a store that others number has ever had, and which it was told are lost. Ranges are cached; after a
 * transaction that failed, `forget` makes the next call read them again.
 */
export class EpochRanges {
  /** The signed declarations of what is, or was, lost. */
  readonly evidence: LossEvidence;
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
  readonly #readLostAround: Statement<[number, number, number], LostRow>;
  readonly #countLost: Statement<[number], number>;

  constructor(database: Database, tables: RangeTables) {
    this.evidence = new LossEvidence(database);
    this.#database = database;
    this.#tables = tables;
    this.#dropRanges = database.prepare(
      `DELETE FROM ${tables.stored} WHERE epoch_id = ? AND from_seq > ? AND from_seq <= ?`,
    );
    this.#putRange = database.prepare(
      `INSERT OR REPLACE INTO ${tables.stored} (epoch_id, from_seq, through_seq) VALUES (?, ?, ?)`,
    );
    const read = `SELECT from_seq AS fromSeq, through_seq AS throughSeq, reason, ${tables.lostAtUs} AS atUs,
         declared_by AS declaredBy, evidence_id AS evidenceId
       FROM ${tables.lost} WHERE epoch_id = ?`;
    this.#readLost = database.prepare(`${read} ORDER BY from_seq`);
    this.#readLostAround = database.prepare(
      `${read} AND through_seq >= ? AND from_seq <= ? ORDER BY from_seq`,
    );
    this.#countLost = database.prepare(`SELECT count(*) FROM ${tables.lost} WHERE epoch_id = ?`);
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
  writeRanges(): readonly ReturnedFrames[] {
    const returned: ReturnedFrames[] = [];
    for (const [epochId, seqs] of this.#added) {
      const ranges = this.#byId.get(epochId)?.ranges.ranges ?? [];
      for (const range of ranges) {
        if (!containsAny(range, seqs)) continue;
        this.#dropRanges.run(epochId, range.fromSeq, range.throughSeq);
        this.#putRange.run(epochId, range.fromSeq, range.throughSeq);
      }
      returned.push(...this.#withdrawLost(epochId, seqs));
    }
    this.#added.clear();
    return returned;
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

  /**
   * Within the caller's transaction. What is stored here is not lost, and the first declaration of a frame counts, unless
   * only a later one is signed, or a later one of the same neighbour covers it and more.
   * @throws LossesError `too-many-losses`
   */
  declareLost(stream: StreamId, lost: LostFrames, nowUs: number): void {
    const { epochId, ranges } = this.#entry(stream, lost.epoch);
    const known = this.#readLostAround.all(epochId, lost.fromSeq - 1, lost.throughSeq + 1);
    const left = new RangeSet(ranges.gaps(lost.fromSeq, lost.throughSeq));
    for (const row of known) {
      if (row.evidenceId === null && lost.proof !== null) this.#cutLost(epochId, row, [lost]);
      else left.deleteRange(row.fromSeq, row.throughSeq);
    }
    const parts = left.ranges;
    if (parts.length === 0) return;
    if (Number(this.#countLost.pluck().get(epochId)) + parts.length > lostRangesMax) {
      throw new LossesError(
        'too-many-losses',
        `more than ${lostRangesMax} ranges of one epoch are declared lost: ask the neighbour what is the matter`,
        { retryable: true, context: { vm: stream.vm, declaredBy: lost.declaredBy ?? 'nobody' } },
      );
    }
    const { reason, declaredAtUs: atUs, declaredBy, proof } = lost;
    const evidenceId =
      proof === null || declaredBy === null ? null : this.evidence.keep(declaredBy, proof, nowUs);
    const covered = known.filter((row) => isCovered(row, lost));
    for (const part of parts) {
      const whole = { ...part, reason, atUs, declaredBy, evidenceId };
      for (const row of covered) {
        if (row.throughSeq !== part.fromSeq - 1 && row.fromSeq !== part.throughSeq + 1) continue;
        whole.fromSeq = Math.min(whole.fromSeq, row.fromSeq);
        whole.throughSeq = Math.max(whole.throughSeq, row.throughSeq);
        this.#cutLost(epochId, row, [row]);
      }
      this.#putLost(epochId, whole);
    }
  }

  /** Ranges of an epoch that were declared lost, ascending. */
  lost(epochId: number): LostRow[] {
    return this.#readLost.all(epochId);
  }

  /** The declared ranges that a frame came for are cut around it. */
  #withdrawLost(epochId: number, seqs: ReadonlySet<number>): readonly ReturnedFrames[] {
    const entry = this.#byId.get(epochId);
    if (entry === undefined) return [];
    return this.lost(epochId).flatMap((row) => {
      const came = [...seqs].filter((seq) => row.fromSeq <= seq && seq <= row.throughSeq);
      if (came.length === 0) return [];
      this.#cutLost(
        epochId,
        row,
        came.map((seq) => ({ fromSeq: seq, throughSeq: seq })),
      );
      if (row.evidenceId !== null) this.evidence.noteReturned(row.evidenceId, came.length);
      const { stream, epoch } = entry;
      return [{ stream, epoch, frameCount: came.length, declaredBy: row.declaredBy }];
    });
  }

  #cutLost(epochId: number, row: LostRow, without: readonly SeqRange[]): void {
    const left = new RangeSet([row]);
    for (const { fromSeq, throughSeq } of without) left.deleteRange(fromSeq, throughSeq);
    this.#database
      .prepare<[number, number]>(
        `DELETE FROM ${this.#tables.lost} WHERE epoch_id = ? AND from_seq = ?`,
      )
      .run(epochId, row.fromSeq);
    for (const part of left.ranges) this.#putLost(epochId, { ...row, ...part });
  }

  #putLost(epochId: number, row: LostRow): void {
    this.#database
      .prepare<[number, number, number, LossReason, number, string | null, number | null]>(
        `INSERT OR REPLACE INTO ${this.#tables.lost}
         (epoch_id, from_seq, through_seq, reason, ${this.#tables.lostAtUs}, declared_by, evidence_id)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        epochId,
        row.fromSeq,
        row.throughSeq,
        row.reason,
        row.atUs,
        row.declaredBy,
        row.evidenceId,
      );
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
    const entry = { epochId, stream, epoch, ranges: new RangeSet(ranges) };
    this.#byKey.set(key, entry);
    this.#byId.set(epochId, entry);
    return entry;
  }
}

/** Whether what is declared now says the same of `row` again, so that both are one range. */
function isCovered(row: LostRow, { reason, declaredBy, proof }: LostFrames): boolean {
  if (row.reason !== reason || row.declaredBy !== declaredBy) return false;
  if (proof === null || row.evidenceId === null) return proof === null && row.evidenceId === null;
  const { fromSeq, throughSeq } = proof.declaration;
  return fromSeq <= row.fromSeq && row.throughSeq <= throughSeq;
}

function containsAny(range: SeqRange, seqs: ReadonlySet<number>): boolean {
  for (const seq of seqs) {
    if (range.fromSeq <= seq && seq <= range.throughSeq) return true;
  }
  return false;
}
