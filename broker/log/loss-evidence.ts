import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import type { LossProof } from '../../common/signing/loss-judge.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { StreamKind } from '../../common/wire/frame.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';

/** Signed declarations kept; beyond it the oldest go. */
const evidenceMax = 10_000;

/** Who declared what lost, with the signature; shared by the stores that take declarations from neighbours. */
export const lossEvidenceTable = `CREATE TABLE loss_evidence (
    evidence_id INTEGER PRIMARY KEY,
    relation TEXT NOT NULL,
    vm TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, nonce TEXT NOT NULL,
    from_seq INTEGER NOT NULL, through_seq INTEGER NOT NULL,
    reason TEXT NOT NULL, declared_at_us INTEGER NOT NULL,
    certificate TEXT NOT NULL, signature TEXT NOT NULL,
    received_at_us INTEGER NOT NULL, returned_count INTEGER NOT NULL DEFAULT 0,
    UNIQUE (vm, kind, number, nonce, from_seq, through_seq, reason, relation)
  ) STRICT;`;

/** SQL that makes the reasons of records, which were texts, the codes of common/wire/loss-reason.ts. */
export function reasonTextsToCodes(table: string): string {
  return `UPDATE ${table} SET reason = CASE reason
    WHEN 'the log’s size bound was reached before every subscriber had stored it' THEN 'log-full'
    WHEN 'older than the log’s age bound and not stored by every subscriber' THEN 'log-too-old'
    WHEN 'pruned after every subscriber had stored it' THEN 'pruned-after-stored'
    WHEN 'the log does not know this epoch' THEN 'epoch-unknown'
    WHEN 'the frame contradicts its neighbours’ hashes' THEN 'chain-broken'
    ELSE 'unspecified' END;`;
}

/** A declaration as it was signed, for a dispute: `openssl` verifies it without our code. */
export interface LossEvidenceRecord extends LossClaim {
  /** The neighbour. */
  readonly relation: string;
  /** Of the key that signed, DER in base64. */
  readonly certificate: string;
  /** Base64url. */
  readonly signature: string;
  /** By our own clock, µs of the epoch. */
  readonly receivedAtUs: number;
  /** Frames of it that came after all. */
  readonly returnedCount: number;
}

interface EvidenceRow extends Omit<LossEvidenceRecord, 'stream' | 'epoch'> {
  readonly vm: string;
  readonly kind: StreamKind;
  readonly number: number;
  readonly nonce: string;
}

type EvidenceKey = [string, string, number, string, number, number, LossReason, string];

/** The declarations that neighbours signed. They outlive what withdraws them. */
export class LossEvidence {
  readonly #database: Database;
  readonly #insert: Statement<[...EvidenceKey, number, string, string, number]>;
  readonly #find: Statement<EvidenceKey, { evidence_id: number }>;

  constructor(database: Database) {
    this.#database = database;
    this.#insert = database.prepare(
      `INSERT INTO loss_evidence (vm, kind, number, nonce, from_seq, through_seq, reason, relation,
         declared_at_us, certificate, signature, received_at_us)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
    );
    this.#find = database.prepare(
      `SELECT evidence_id FROM loss_evidence WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?
         AND from_seq = ? AND through_seq = ? AND reason = ? AND relation = ?`,
    );
  }

  /** The id of the record; a repetition of what is kept is the same one. */
  keep(relation: string, { certificate, declaration }: LossProof, receivedAtUs: number): number {
    const { stream, epoch, fromSeq, throughSeq, reason, declaredAtUs, signature } = declaration;
    const place = [stream.vm, stream.kind, epoch.number, epoch.nonce] as const;
    const key: EvidenceKey = [...place, fromSeq, throughSeq, reason, relation];
    const { changes } = this.#insert.run(
      ...key,
      declaredAtUs,
      certificate,
      signature,
      receivedAtUs,
    );
    const id = this.#find.get(...key)?.evidence_id ?? 0;
    if (changes > 0) this.#forgetBefore(id - evidenceMax);
    return id;
  }

  /** Frames that were declared lost came after all. */
  noteReturned(evidenceId: number, frameCount: number): void {
    this.#database
      .prepare<[number, number]>(
        'UPDATE loss_evidence SET returned_count = returned_count + ? WHERE evidence_id = ?',
      )
      .run(frameCount, evidenceId);
  }

  /** The newest first, at most `limit`. */
  list(limit: number): readonly LossEvidenceRecord[] {
    return this.#database
      .prepare<[number], EvidenceRow>(
        `SELECT relation, vm, kind, number, nonce, from_seq AS fromSeq, through_seq AS throughSeq, reason,
           declared_at_us AS declaredAtUs, certificate, signature, received_at_us AS receivedAtUs,
           returned_count AS returnedCount
         FROM loss_evidence ORDER BY evidence_id DESC LIMIT ?`,
      )
      .all(limit)
      .map(({ vm, kind, number, nonce, ...record }) => ({
        ...record,
        stream: { vm: vmIdSchema.parse(vm), kind },
        epoch: { number, nonce },
      }));
  }

  #forgetBefore(id: number): void {
    this.#database.prepare<[number]>('DELETE FROM loss_evidence WHERE evidence_id <= ?').run(id);
  }
}
