import { join } from 'node:path';

import { type Area, areas } from '../../common/channel/area.ts';
import { type Database, openDatabase, type Statement } from '../../common/sqlite/database.ts';
import { databaseFileName, readerCacheBytesMax } from './schema.ts';
import { type ContentReader, type FileId, type PersistentFile } from './store-request.ts';

interface AreaStatements {
  readonly database: Database;
  readonly content: Statement<[FileId], { content: Buffer }>;
  readonly appends: Statement<[FileId], { content: Buffer }>;
}

interface FileRow {
  readonly file: FileId;
  readonly path: string;
  readonly is_directory: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly accessed_at_us: number;
  readonly modified_at_us: number;
  readonly size: number;
}

/** Reads files through read-only connections of its own; one for each thread that reads. */
export class DatabaseContentReader implements ContentReader {
  readonly #areas: Readonly<Record<Area, AreaStatements>>;

  /** Opens the databases that the store thread has made. Throws DatabaseError. */
  constructor(directory: string) {
    const open = (area: Area): AreaStatements => {
      const path = join(directory, databaseFileName(area));
      const database = openDatabase(path, { readonly: true, cacheBytesMax: readerCacheBytesMax });
      return {
        database,
        content: database.prepare('SELECT content FROM "/files" WHERE file = ?'),
        appends: database.prepare(
          'SELECT content FROM "/appends" WHERE file = ? ORDER BY append_id',
        ),
      };
    };
    this.#areas = { encrypted: open('encrypted'), unencrypted: open('unencrypted') };
  }

  list(): readonly PersistentFile[] {
    return areas.flatMap((area) =>
      this.#areas[area].database
        .prepare<[], FileRow>(
          `SELECT file, path, is_directory, mode, uid, gid, accessed_at_us, modified_at_us,
           length(content) + (SELECT coalesce(sum(length(content)), 0) FROM "/appends" AS a
                              WHERE a.file = f.file) AS size
           FROM "/files" AS f ORDER BY path`,
        )
        .all()
        .map((row) => ({
          file: row.file,
          location: { area, path: row.path },
          isDirectory: row.is_directory === 1,
          attributes: {
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            accessedAtUs: row.accessed_at_us,
            modifiedAtUs: row.modified_at_us,
          },
          sizeBytes: row.size,
        })),
    );
  }

  content(area: Area, file: FileId): Uint8Array {
    const { database, content, appends } = this.#areas[area];
    // One snapshot: a logger may be compacted between the two statements.
    return database.transaction(() => {
      const base = content.get(file)?.content ?? Buffer.alloc(0);
      const added = appends.all(file);
      return added.length === 0 ? base : Buffer.concat([base, ...added.map((row) => row.content)]);
    })();
  }

  close(): void {
    for (const area of areas) this.#areas[area].database.close();
  }
}
