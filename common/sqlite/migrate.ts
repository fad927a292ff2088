import assert from 'node:assert';

import { DatabaseError, type Database } from './database.ts';

/** One step of a schema; its position in the list (from 1) is the `user_version` it leads to. */
export interface Migration {
  readonly name: string;
  /** SQL, or a function for steps that need to look at data. Runs inside the migration's transaction. */
  readonly up: string | ((database: Database) => void);
}

/**
 * Brings `database` to the newest of `migrations` in one transaction and returns the versions before and after.
 * Published migrations are never edited, only added to.
 * @throws DatabaseError `database-newer` when a newer program wrote the file; it is left untouched.
 */
export function migrate(
  database: Database,
  migrations: readonly Migration[],
): { readonly before: number; readonly after: number } {
  const before = Number(database.pragma('user_version', { simple: true }));
  assert(Number.isInteger(before));
  if (before > migrations.length) {
    throw new DatabaseError(
      'database-newer',
      `${database.name} has schema version ${before}, this program knows up to ${migrations.length}: ` +
        'use the newer program, or another data directory',
      { context: { schemaVersion: before, knownVersion: migrations.length } },
    );
  }
  // Writes nothing, so that a program starts on a full or read-only disk too.
  if (before === migrations.length) return { before, after: before };
  const apply = database.transaction(() => {
    for (const migration of migrations.slice(before)) {
      if (typeof migration.up === 'string') database.exec(migration.up);
      else migration.up(database);
    }
    database.pragma(`user_version = ${migrations.length}`);
  });
  apply.immediate();
  return { before, after: migrations.length };
}
