import type { Database, Statement } from '../../common/sqlite/database.ts';

/** So that adding up what is kept stays cheap when refused saves are small. */
const entriesMax = 1_000;

/**
 * What was refused, with the reason, for whoever wonders where a save went. Bounded by bytes, age and count; the oldest go
 * first, and of content beyond the bound only the beginning is kept.
 */
export class Quarantine {
  readonly #bytesMax: number;
  readonly #ageMaxUs: number;
  readonly #insert: Statement;
  readonly #oldest: Statement<
    [],
    { quarantine_id: number; refused_at_us: number; kept_bytes: number }
  >;
  readonly #delete: Statement;
  readonly #total: Statement<[], { total: number; count: number }>;

  constructor(
    database: Database,
    bounds: { readonly bytesMax: number; readonly ageMaxMs: number },
  ) {
    this.#bytesMax = bounds.bytesMax;
    this.#ageMaxUs = bounds.ageMaxMs * 1_000;
    this.#insert = database.prepare(
      `INSERT INTO "/quarantine" (path, refused_at_us, reason, message, content_bytes, content)
       VALUES (?, ?, ?, ?, ?, ?)`,
    );
    this.#oldest = database.prepare(
      `SELECT quarantine_id, refused_at_us, length(content) AS kept_bytes FROM "/quarantine"
       ORDER BY quarantine_id LIMIT 1`,
    );
    this.#delete = database.prepare('DELETE FROM "/quarantine" WHERE quarantine_id = ?');
    this.#total = database.prepare(
      'SELECT count(*) AS count, coalesce(sum(length(content)), 0) AS total FROM "/quarantine"',
    );
  }

  add(
    path: string,
    refusedAtUs: number,
    reason: { readonly code: string; readonly message: string },
    content: Uint8Array,
  ): void {
    const kept = content.subarray(0, this.#bytesMax);
    this.#insert.run(path, refusedAtUs, reason.code, reason.message, content.byteLength, kept);
    this.trim(refusedAtUs);
  }

  /** Drops what is too old or too much. Runs inside the caller's transaction. */
  trim(nowUs: number): void {
    let { total, count } = this.#total.get() ?? { total: 0, count: 0 };
    for (;;) {
      const oldest = this.#oldest.get();
      if (oldest === undefined) return;
      const isOld = nowUs - oldest.refused_at_us > this.#ageMaxUs;
      if (!isOld && total <= this.#bytesMax && count <= entriesMax) return;
      this.#delete.run(oldest.quarantine_id);
      total -= oldest.kept_bytes;
      count -= 1;
    }
  }
}
