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

/** One kind of finding in one epoch; `epoch` 0 stands for all that are not told apart any more, an empty `vm` too. */
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

export interface IntegrityLimits {
  /** Records kept of one VM; beyond it older epochs are counted together. */
  readonly recordsPerVmMax: number;
  /** Records kept in all; beyond it VMs, which someone makes up, are counted together. */
  readonly recordsMax: number;
}

const defaultLimits: IntegrityLimits = { recordsPerVmMax: 256, recordsMax: 10_000 };
const recordsShownMax = 256;
/** What anyone who makes up epochs brings about goes first, and is shown last. */
const leastSaying = `finding IN ('unsigned', 'key-not-stated', 'loss-unsigned', 'loss-forged')`;

interface StoredRecord {
  readonly vm: string;
  readonly kind: string;
  readonly finding: Finding;
  readonly count: number;
  readonly first_seq: number;
  readonly last_seq: number;
  readonly first_at_us: number;
  readonly last_at_us: number;
}

type Place = Pick<FrameHeader, 'stream' | 'epoch' | 'seq'>;

/** Durable counts of what was found wrong. No retention touches them. */
export class IntegrityRecords {
  readonly #database: Database;
  readonly #limits: IntegrityLimits;
  /** At most so many; those that were withdrawn count until the next look. */
  #recordCount: number;

  constructor(database: Database, limits = defaultLimits) {
    this.#database = database;
    this.#limits = limits;
    this.#recordCount = this.#countRecords();
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
    this.#database
      .prepare('INSERT INTO integrity VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)')
      .run(...place, finding, seq, throughSeq, atUs, atUs);
    this.#recordCount += 1;
    const { recordsPerVmMax, recordsMax } = this.#limits;
    this.#summarize(stream.vm, recordsPerVmMax);
    if (this.#recordCount > recordsMax) this.#summarize(undefined, recordsMax);
  }

  /** Beyond `max` records, of a VM or in all, a tenth of them are counted with their like: those that say least. */
  #summarize(vm: string | undefined, max: number): void {
    const [which, of] = vm === undefined ? ['true', []] : ['vm = ?', [vm]];
    const counted = this.#database
      .prepare<string[], number>(`SELECT count(*) FROM integrity WHERE ${which} AND number > 0`)
      .pluck();
    if ((counted.get(...of) ?? 0) <= max) return;
    const least = this.#database
      .prepare<string[], StoredRecord>(
        `DELETE FROM integrity WHERE (vm, kind, number, nonce, finding) IN (
           SELECT vm, kind, number, nonce, finding FROM integrity WHERE ${which} AND number > 0
           ORDER BY ${leastSaying} DESC, last_at_us LIMIT ${Math.ceil(max / 10)})
         RETURNING *`,
      )
      .all(...of);
    const add = this.#database.prepare<StoredRecord>(
      `INSERT INTO integrity VALUES
         (:vm, :kind, 0, '', :finding, :count, :first_seq, :last_seq, :first_at_us, :last_at_us)
       ON CONFLICT DO UPDATE SET count = count + excluded.count,
         first_seq = min(first_seq, excluded.first_seq), last_seq = max(last_seq, excluded.last_seq),
         first_at_us = min(first_at_us, excluded.first_at_us), last_at_us = max(last_at_us, excluded.last_at_us)`,
    );
    for (const record of least) {
      add.run(vm === undefined ? { ...record, vm: '', kind: '' } : record);
    }
    this.#recordCount = this.#countRecords();
  }

  #countRecords(): number {
    return Number(this.#database.prepare('SELECT count(*) FROM integrity').pluck().get());
  }

  /** What was found turned out to be nothing. */
  withdraw({ stream, epoch }: Omit<Place, 'seq'>, finding: Finding): void {
    this.#database
      .prepare<[string, string, number, string, string]>(
        'DELETE FROM integrity WHERE vm = ? AND kind = ? AND number = ? AND nonce = ? AND finding = ?',
      )
      .run(stream.vm, stream.kind, epoch.number, epoch.nonce, finding);
  }

  /** The newest, at most 256; what says least comes last. */
  list(): readonly IntegrityRecord[] {
    return this.#database
      .prepare<[number], IntegrityRecord>(
        `SELECT vm, kind AS stream, number AS epoch, finding, count, first_seq AS firstSeq, last_seq AS lastSeq,
           first_at_us AS firstAtUs, last_at_us AS lastAtUs
         FROM integrity ORDER BY ${leastSaying}, last_at_us DESC, vm, kind, number LIMIT ?`,
      )
      .all(recordsShownMax);
  }
}
