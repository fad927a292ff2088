import type { Clock } from '../../common/runtime/clock.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId, StreamKind } from '../../common/wire/frame.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';

/** The two watermarks that travel upstream. */
export type StoredBy = 'next-hop' | 'final-reader';

/** How far every subscriber that may have an epoch has it. */
export interface CommonWatermark {
  readonly epochId: number;
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly throughSeq: number;
  /** Of the epoch's frames that are still in the log. */
  readonly bytes: number;
}

/** Whether a subscriber may have a stream, so that retention waits for it. */
export type MayHave = (subscriber: string, stream: StreamId) => boolean;

interface WatermarkRow {
  readonly epoch_id: number;
  readonly vm: string;
  readonly kind: StreamKind;
  readonly number: number;
  readonly nonce: string;
  /** Of the epoch's frames that are still there. */
  readonly bytes: number;
  readonly subscriber: string;
  readonly through_seq: number;
}

/**
 * Who subscribes to the log's streams and how far each has them, durable. A cursor ends by unsubscribing or
 * revocation ({@link LogCursors.remove}); until then retention counts on it.
 */
export class LogCursors {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #mayHave: MayHave;
  readonly #insert: Statement<[string, number]>;
  readonly #advance: Statement<[string, StoredBy, number, string, string, number, string]>;

  /** Without `mayHave` every subscriber may have everything. */
  constructor(deps: {
    readonly database: Database;
    readonly clock: Clock;
    readonly mayHave?: MayHave;
  }) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#mayHave = deps.mayHave ?? (() => true);
    this.#insert = deps.database.prepare(
      'INSERT INTO stream_log_subscribers (subscriber, created_at_us) VALUES (?, ?) ON CONFLICT DO NOTHING',
    );
    // A watermark never goes back, and never passes what the epoch has.
    this.#advance = deps.database.prepare(
      `INSERT INTO stream_log_watermarks (subscriber, epoch_id, stored_by, through_seq)
       SELECT ?, epoch_id, ?, min(?, last_seq) FROM stream_log_epochs
       WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?
       ON CONFLICT DO UPDATE SET through_seq = max(through_seq, excluded.through_seq)`,
    );
  }

  /** Makes a cursor at the beginning of everything, or keeps the one that is there. */
  add(subscriber: string): void {
    this.#insert.run(subscriber, this.#clock.wallUs());
  }

  remove(subscriber: string): void {
    this.#database
      .prepare<[string]>('DELETE FROM stream_log_subscribers WHERE subscriber = ?')
      .run(subscriber);
  }

  subscribers(): string[] {
    return this.#database
      .prepare<[], { subscriber: string }>('SELECT subscriber FROM stream_log_subscribers')
      .all()
      .map(({ subscriber }) => subscriber);
  }

  /** Raises watermarks, all in one transaction; epochs that the log does not know are ignored. */
  advance(
    subscriber: string,
    storedBy: StoredBy,
    watermarks: readonly {
      readonly stream: StreamId;
      readonly epoch: Epoch;
      readonly throughSeq: number;
    }[],
  ): void {
    const apply = this.#database.transaction(() => {
      for (const { stream, epoch, throughSeq } of watermarks) {
        this.#advance.run(
          subscriber,
          storedBy,
          throughSeq,
          stream.vm,
          stream.kind,
          epoch.number,
          epoch.nonce,
        );
      }
    });
    apply();
  }

  /** How far `subscriber` has the epoch; 0 when it has nothing of it. */
  throughSeq(subscriber: string, storedBy: StoredBy, stream: StreamId, epoch: Epoch): number {
    const row = this.#database
      .prepare<[string, StoredBy, string, string, number, string], { through_seq: number }>(
        `SELECT through_seq FROM stream_log_watermarks JOIN stream_log_epochs USING (epoch_id)
         WHERE subscriber = ? AND stored_by = ? AND vm = ? AND kind = ? AND number = ? AND nonce = ?`,
      )
      .get(subscriber, storedBy, stream.vm, stream.kind, epoch.number, epoch.nonce);
    return row?.through_seq ?? 0;
  }

  /**
   * For each epoch, how far all subscribers have it that may have it; what the final reader has counts for
   * the next hop too. Epochs of which one has nothing, or that nobody may have, are absent.
   */
  storedByAll(storedBy: StoredBy): CommonWatermark[] {
    const rows = this.#database
      .prepare<[StoredBy], WatermarkRow>(
        `SELECT epoch_id, vm, kind, number, nonce, bytes, subscriber, coalesce(through_seq, 0) AS through_seq
         FROM stream_log_epochs CROSS JOIN stream_log_subscribers
         LEFT JOIN (SELECT epoch_id, subscriber, max(through_seq) AS through_seq FROM stream_log_watermarks
                    WHERE stored_by IN ('final-reader', ?) GROUP BY epoch_id, subscriber)
         USING (epoch_id, subscriber) ORDER BY epoch_id`,
      )
      .all(storedBy);
    const common = new Map<number, CommonWatermark>();
    for (const row of rows) {
      const stream = { vm: vmIdSchema.parse(row.vm), kind: row.kind };
      if (!this.#mayHave(row.subscriber, stream)) continue;
      const epoch = { number: row.number, nonce: row.nonce };
      const before = common.get(row.epoch_id)?.throughSeq ?? Number.POSITIVE_INFINITY;
      const throughSeq = Math.min(before, row.through_seq);
      const { epoch_id: epochId, bytes } = row;
      common.set(epochId, { epochId, stream, epoch, throughSeq, bytes });
    }
    return [...common.values()].filter(({ throughSeq }) => throughSeq > 0);
  }
}
