import type { Clock } from '../../common/runtime/clock.ts';
import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { StreamKind } from '../../common/wire/frame.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';
import type { SeqRange } from '../range-set.ts';
import type { GivenUpFrames } from './frame-log.ts';

interface LossRow {
  readonly vm: string;
  readonly kind: StreamKind;
  readonly number: number;
  readonly nonce: string;
  readonly from_seq: number;
  readonly through_seq: number;
  readonly reason: LossReason;
  readonly declared_at_us: number;
}

/** Where nobody further up has the frames: what retention gives up is lost, with a durable record of each range. */
export class LogLosses implements GivenUpFrames {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #extend: Statement<[number, number, number, number, LossReason]>;
  readonly #insert: Statement<[number, number, number, number, LossReason]>;
  /** Epochs with records that {@link take} has not given yet. */
  readonly #changed = new Set<number>();

  constructor(deps: { readonly database: Database; readonly clock: Clock }) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#extend = deps.database.prepare(
      `UPDATE stream_log_lost SET through_seq = ?, declared_at_us = ?
       WHERE epoch_id = ? AND through_seq = ? AND reason = ?`,
    );
    this.#insert = deps.database.prepare(
      'INSERT INTO stream_log_lost (epoch_id, from_seq, through_seq, declared_at_us, reason) VALUES (?, ?, ?, ?, ?)',
    );
  }

  note(epochId: number, { fromSeq, throughSeq }: SeqRange, reason: LossReason): void {
    const nowUs = this.#clock.wallUs();
    this.#changed.add(epochId);
    if (this.#extend.run(throughSeq, nowUs, epochId, fromSeq - 1, reason).changes > 0) return;
    this.#insert.run(epochId, fromSeq, throughSeq, nowUs, reason);
  }

  /** All records of epochs that got new ones since the last call; those that were rolled back are not among them. */
  take(): readonly LossClaim[] {
    const read = this.#database.prepare<[number], LossRow>(
      `SELECT vm, kind, number, nonce, from_seq, through_seq, reason, declared_at_us
       FROM stream_log_lost JOIN stream_log_epochs USING (epoch_id) WHERE epoch_id = ? ORDER BY from_seq`,
    );
    const claims = [...this.#changed].flatMap((epochId) => read.all(epochId).map(claimOf));
    this.#changed.clear();
    return claims;
  }
}

function claimOf(row: LossRow): LossClaim {
  return {
    stream: { vm: vmIdSchema.parse(row.vm), kind: row.kind },
    epoch: { number: row.number, nonce: row.nonce },
    fromSeq: row.from_seq,
    throughSeq: row.through_seq,
    reason: row.reason,
    declaredAtUs: row.declared_at_us,
  };
}
