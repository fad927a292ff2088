import type { Migration } from '../../common/sqlite/migrate.ts';

/**
 * Our own tables of both databases; all others are KPI tables, named like files. Names begin with `/`, which no path
 * below a directory does.
 *
 * `/state` has one row. `/files` is what the mount shows, `/appends` what a logger added to a file since it was last
 * compacted, `/held` the saves that were overtaken before they were published, `/layouts` which columns the rows of a
 * table have from a row_id on (a NULL is an empty field there, and no field elsewhere), `/lost` what the size bound cost.
 */
export const storeMigrations: readonly Migration[] = [
  {
    name: 'files, held saves, quarantine and identity',
    up: `
      CREATE TABLE "/state" (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        generation TEXT NOT NULL,
        generation_reason TEXT NOT NULL,
        generation_after_row_id INTEGER NOT NULL,
        instance TEXT NOT NULL,
        inode TEXT NOT NULL,
        machine_id TEXT,
        last_row_id INTEGER NOT NULL,
        commit_count INTEGER NOT NULL,
        acknowledged_row_id INTEGER NOT NULL
      ) STRICT;
      CREATE TABLE "/files" (
        file INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        is_directory INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        accessed_at_us INTEGER NOT NULL,
        modified_at_us INTEGER NOT NULL,
        content BLOB NOT NULL
      ) STRICT;
      CREATE TABLE "/appends" (
        append_id INTEGER PRIMARY KEY,
        file INTEGER NOT NULL,
        content BLOB NOT NULL
      ) STRICT;
      CREATE INDEX "/appends-by-file" ON "/appends" (file, append_id);
      CREATE TABLE "/held" (
        held_id INTEGER PRIMARY KEY,
        handle INTEGER NOT NULL,
        table_name TEXT NOT NULL,
        saved_at_us INTEGER NOT NULL,
        rows TEXT,
        content BLOB
      ) STRICT;
      CREATE TABLE "/layouts" (
        table_name TEXT NOT NULL,
        first_row_id INTEGER NOT NULL,
        columns TEXT NOT NULL,
        PRIMARY KEY (table_name, first_row_id)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE "/quarantine" (
        quarantine_id INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        refused_at_us INTEGER NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        content_bytes INTEGER NOT NULL,
        content BLOB NOT NULL
      ) STRICT;
      CREATE TABLE "/lost" (
        lost_id INTEGER PRIMARY KEY,
        from_row_id INTEGER NOT NULL,
        through_row_id INTEGER NOT NULL,
        row_count INTEGER NOT NULL,
        lost_at_us INTEGER NOT NULL,
        reason TEXT NOT NULL
      ) STRICT;
    `,
  },
];

/** The file of an area's database in the data directory. */
export function databaseFileName(area: 'encrypted' | 'unencrypted'): string {
  return `${area}.db`;
}

/** True for tables of ours and of SQLite: no KPI tables. */
export function isOwnTable(name: string): boolean {
  return name.startsWith('/') || name.toLowerCase().startsWith('sqlite_');
}

/** Memory for pages of one read-only connection; readers follow the newest rows. */
export const readerCacheBytesMax = 2 ** 19;
