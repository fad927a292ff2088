import type { Clock } from '../../common/runtime/clock.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';

/** The two watermarks that travel upstream. */
export type StoredBy = 'next-hop' | 'final-reader';

/**
 * Who subscribes to the log's streams and how far each has them, durable. A cursor ends by unsubscribing or
 * revocation ({@link LogCursors.remove}); until then retention counts on it.
 */
export class LogCursors {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #insert: Statement<[string, number]>;
  readonly #advance: Statement<[string, StoredBy, number, string, string, number, string]>;

  constructor(deps: { readonly database: Database; readonly clock: Clock }) {
    this.#database = deps.database;
    this.#clock = deps.clock;
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
}
