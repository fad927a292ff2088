import type { LossRefusal } from '../../common/signing/loss-judge.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { FrameHeader } from '../../common/wire/frame.ts';

/**
 * What can be wrong with a frame, or with what is said of it:
 *
 *   forged           a signature that is not of the epoch's key: altered on the way, made up, or moved to another place
 *   unsigned         no signature, where the epoch has a key or signatures are required; refused
 *   key-not-stated   signed by a key that no neighbour has stated, where signatures are required: not taken yet, asked for
 *                    again; withdrawn when the key is stated
 *   altered          a sealed body that is not what was sealed
 *   contradicting    another frame for a place that is taken; the first stays
 *   key-contradicting  a second, other key was stated for an epoch; the first stays
 *   loss-unsigned    frames were declared lost without a signature, where signatures are required: they stay missing
 *   loss-forged      frames were declared lost under a signature that is not the neighbour's: they stay missing
 */
export type Finding =
  | 'forged'
  | 'unsigned'
  | 'key-not-stated'
  | 'altered'
  | 'contradicting'
  | 'key-contradicting'
  | LossRefusal;

/** One kind of finding in one epoch. */
export interface IntegrityRecord {
  readonly vm: string;
  readonly stream: string;
  readonly epoch: number;
  readonly finding: Finding;
  readonly count: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly firstAtUs: number;
  readonly lastAtUs: number;
}

/** Rows kept; beyond it findings of further epochs, which someone makes up, are counted together under no VM. */
const recordsMax = 10_000;
const recordsShownMax = 256;

type Place = Pick<FrameHeader, 'stream' | 'epoch' | 'seq'>;

/** Durable counts of what was found wrong. No retention touches them. */
export class IntegrityRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Of one frame, or of all from `seq` through `throughSeq`. */
  note(
    { stream, epoch, seq }: Place,
    finding: Finding,
    atUs: number,
    throughSeq: number = seq,
  ): void {
    const raise = this.#database.prepare<[number, number, number, ...(string | number)[]]>(
      `UPDATE integrity SET count = count + 1, last_at_us = ?,
         first_seq = min(first_seq, ?), last_seq = max(last_seq, ?)
       WHERE vm = ? AND kind = ? AND number = ? AND nonce = ? AND finding = ?`,
    );
    const place = [stream.vm, stream.kind, epoch.number, epoch.nonce] as const;
    if (raise.run(atUs, seq, throughSeq, ...place, finding).changes > 0) return;
    const isFull =
      Number(this.#database.prepare('SELECT count(*) FROM integrity').pluck().get()) >= recordsMax;
    const [vm, kind, number, nonce] = isFull ? ['', '', 0, ''] : place;
    this.#database
      .prepare(
        `INSERT INTO integrity VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET count = count + 1, last_at_us = excluded.last_at_us`,
      )
      .run(vm, kind, number, nonce, finding, seq, throughSeq, atUs, atUs);
  }

  /** What was found turned out to be nothing. */
  withdraw({ stream, epoch }: Omit<Place, 'seq'>, finding: Finding): void {
    this.#database
      .prepare<[string, string, number, string, string]>(
        'DELETE FROM integrity WHERE vm = ? AND kind = ? AND number = ? AND nonce = ? AND finding = ?',
      )
      .run(stream.vm, stream.kind, epoch.number, epoch.nonce, finding);
  }

  /** The newest, at most 256. */
  list(): readonly IntegrityRecord[] {
    return this.#database
      .prepare<[number], IntegrityRecord>(
        `SELECT vm, kind AS stream, number AS epoch, finding, count, first_seq AS firstSeq, last_seq AS lastSeq,
           first_at_us AS firstAtUs, last_at_us AS lastAtUs
         FROM integrity ORDER BY last_at_us DESC, vm, kind, number LIMIT ?`,
      )
      .all(recordsShownMax);
  }
}
