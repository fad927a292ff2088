import { DatabaseError, type Database } from '../../common/sqlite/database.ts';
import { reasonTextsToCodes } from './loss-evidence.ts';

/**
 * The log shares its database file with its owner (the origin commits frame, cursor and window state together), so it
 * keeps its schema version in a table of its own instead of `user_version`.
 *
 *   stream_log_frames is ordered by arrival (frame_id); an epoch's frames by seq. `bytes` in stream_log_epochs is the
 *   sum over its frames, so that the size bound costs no scan. `declared_by` in stream_log_lost is null for what this log
 *   gave up itself; a relay's names the neighbour that declared it, and points to its signature.
 */
const migrations: readonly string[] = [
  `CREATE TABLE stream_log_epochs (
     epoch_id INTEGER PRIMARY KEY,
     vm TEXT NOT NULL,
     kind TEXT NOT NULL,
     number INTEGER NOT NULL,
     nonce TEXT NOT NULL,
     last_seq INTEGER NOT NULL,
     last_hash BLOB NOT NULL,
     closed INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     UNIQUE (vm, kind, number, nonce)
   ) STRICT;
   CREATE TABLE stream_log_frames (
     frame_id INTEGER PRIMARY KEY,
     epoch_id INTEGER NOT NULL REFERENCES stream_log_epochs ON DELETE CASCADE,
     seq INTEGER NOT NULL,
     produced_at_us INTEGER NOT NULL,
     bytes BLOB NOT NULL,
     UNIQUE (epoch_id, seq)
   ) STRICT;
   CREATE TABLE stream_log_lost (
     epoch_id INTEGER NOT NULL REFERENCES stream_log_epochs ON DELETE CASCADE,
     from_seq INTEGER NOT NULL,
     through_seq INTEGER NOT NULL,
     declared_at_us INTEGER NOT NULL,
     reason TEXT NOT NULL,
     PRIMARY KEY (epoch_id, from_seq)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE stream_log_subscribers (
     subscriber TEXT PRIMARY KEY,
     created_at_us INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE stream_log_watermarks (
     subscriber TEXT NOT NULL REFERENCES stream_log_subscribers ON DELETE CASCADE,
     epoch_id INTEGER NOT NULL REFERENCES stream_log_epochs ON DELETE CASCADE,
     stored_by TEXT NOT NULL,
     through_seq INTEGER NOT NULL,
     PRIMARY KEY (subscriber, epoch_id, stored_by)
   ) STRICT, WITHOUT ROWID;`,
  `ALTER TABLE stream_log_lost ADD COLUMN declared_by TEXT;
   ALTER TABLE stream_log_lost ADD COLUMN evidence_id INTEGER;
   ${reasonTextsToCodes('stream_log_lost')}`,
];

/**
 * Brings the log's tables in `database` to the newest schema, in one transaction.
 * @throws DatabaseError `database-newer` when a newer program wrote them; they are left untouched.
 */
export function migrateStreamLog(database: Database): void {
  const apply = database.transaction(() => {
    database.exec('CREATE TABLE IF NOT EXISTS stream_log_schema (version INTEGER NOT NULL) STRICT');
    const known = database
      .prepare<[], { version: number }>('SELECT version FROM stream_log_schema')
      .get();
    const before = known?.version ?? 0;
    if (before > migrations.length) {
      throw new DatabaseError(
        'database-newer',
        `${database.name}: the stream log has schema version ${before}, this program knows up to ` +
          `${migrations.length}: use the newer program, or another data directory`,
        { context: { schemaVersion: before, knownVersion: migrations.length } },
      );
    }
    for (const migration of migrations.slice(before)) database.exec(migration);
    database.exec('DELETE FROM stream_log_schema');
    database.prepare('INSERT INTO stream_log_schema VALUES (?)').run(migrations.length);
  });
  apply.immediate();
}
