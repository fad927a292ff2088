import type { Database } from '../../common/sqlite/database.ts';
import { DatabaseError } from '../../common/sqlite/database.ts';

/** Steps of the collector's own tables; published ones are never edited, only added to. */
const steps: readonly string[] = [
  `CREATE TABLE collector_descriptor (
     vm TEXT PRIMARY KEY, revision INTEGER NOT NULL, document TEXT NOT NULL
   ) STRICT;
   CREATE TABLE collector_vm (
     vm TEXT PRIMARY KEY, snapshot TEXT, snapshot_position INTEGER NOT NULL
   ) STRICT;
   CREATE TABLE collector_cursor (
     vm TEXT NOT NULL, area TEXT NOT NULL, generation TEXT NOT NULL, row_id INTEGER NOT NULL,
     PRIMARY KEY (vm, area)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE collector_journal (
     vm TEXT NOT NULL, position INTEGER NOT NULL, inputs TEXT NOT NULL,
     PRIMARY KEY (vm, position)
   ) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE collector_mark (
     token TEXT NOT NULL, commits INTEGER NOT NULL, file_id TEXT NOT NULL
   ) STRICT;
   ALTER TABLE collector_vm ADD COLUMN is_restored INTEGER NOT NULL DEFAULT 0;
   CREATE TABLE collector_process (
     vm TEXT PRIMARY KEY, pid INTEGER NOT NULL, identity TEXT NOT NULL
   ) STRICT;`,
];

/**
 * Brings the collector's tables up to date. The database is shared with the stream log, whose tables have versions of
 * their own; so this part's version is a row of `collector_schema` instead of the file's `user_version`.
 * @throws DatabaseError `database-newer` when a newer program wrote them.
 */
export function migrateCollector(database: Database): void {
  const apply = database.transaction(() => {
    database.exec('CREATE TABLE IF NOT EXISTS collector_schema (version INTEGER NOT NULL) STRICT');
    const before = Number(
      database.prepare('SELECT coalesce(max(version), 0) FROM collector_schema').pluck().get(),
    );
    if (before > steps.length) {
      throw new DatabaseError(
        'database-newer',
        `${database.name} has collector tables of version ${before}, this program knows up to ${steps.length}: ` +
          'use the newer program, or another data directory',
        { context: { schemaVersion: before, knownVersion: steps.length } },
      );
    }
    for (const step of steps.slice(before)) database.exec(step);
    database.exec('DELETE FROM collector_schema');
    database.prepare('INSERT INTO collector_schema VALUES (?)').run(steps.length);
  });
  apply.immediate();
}
