import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { FileAttributes, FileId } from './store-request.ts';
import type { UndoLog } from './undo-log.ts';

interface FileEntry {
  readonly path: string;
  readonly sizeBytes: number;
  readonly hasAppends: boolean;
  /** The content as text; undefined when it is to be read again. */
  readonly text: string | undefined;
}

/**
 * The files of one area: their attributes and the content of their last save, in `/files` and `/appends`. The texts of
 * the files used last are kept in memory, up to a bound, since each save is compared with the one before.
 * Calls run inside the caller's transaction.
 */
export class FileTable {
  readonly #undo: UndoLog;
  readonly #textCharactersMax: number;
  readonly #files = new Map<FileId, FileEntry>();
  #textCharacters = 0;
  readonly #insert: Statement;
  readonly #update: Statement;
  readonly #updateAttributes: Statement;
  readonly #updatePath: Statement;
  readonly #delete: Statement;
  readonly #content: Statement<[FileId], { content: Buffer }>;
  readonly #append: Statement;
  readonly #appends: Statement<[FileId], { content: Buffer }>;
  readonly #deleteAppends: Statement;
  readonly #updateContent: Statement;

  constructor(database: Database, undo: UndoLog, textCharactersMax: number) {
    this.#undo = undo;
    this.#textCharactersMax = textCharactersMax;
    this.#insert = database.prepare('INSERT OR REPLACE INTO "/files" VALUES (?,?,?,?,?,?,?,?,?)');
    this.#update = database.prepare(
      `UPDATE "/files" SET mode = ?, uid = ?, gid = ?, accessed_at_us = ?, modified_at_us = ?, content = ?
       WHERE file = ?`,
    );
    this.#updateAttributes = database.prepare(
      `UPDATE "/files" SET mode = ?, uid = ?, gid = ?, accessed_at_us = ?, modified_at_us = ? WHERE file = ?`,
    );
    this.#updatePath = database.prepare('UPDATE "/files" SET path = ? WHERE file = ?');
    this.#delete = database.prepare('DELETE FROM "/files" WHERE file = ?');
    this.#content = database.prepare('SELECT content FROM "/files" WHERE file = ?');
    this.#append = database.prepare('INSERT INTO "/appends" (file, content) VALUES (?, ?)');
    this.#appends = database.prepare(
      'SELECT content FROM "/appends" WHERE file = ? ORDER BY append_id',
    );
    this.#deleteAppends = database.prepare('DELETE FROM "/appends" WHERE file = ?');
    this.#updateContent = database.prepare('UPDATE "/files" SET content = ? WHERE file = ?');
    const sizes = database.prepare<[], { file: FileId; path: string; own: number; added: number }>(
      `SELECT file, path, length(content) AS own,
       (SELECT coalesce(sum(length(content)), 0) FROM "/appends" AS a WHERE a.file = f.file) AS added
       FROM "/files" AS f`,
    );
    for (const { file, path, own, added } of sizes.all()) {
      this.#files.set(file, {
        path,
        sizeBytes: own + added,
        hasAppends: added > 0,
        text: undefined,
      });
    }
  }

  sizeBytes(file: FileId): number {
    return this.#files.get(file)?.sizeBytes ?? 0;
  }

  /** Files whose content lies partly in `/appends`. */
  filesWithAppends(): readonly FileId[] {
    return [...this.#files].filter(([, entry]) => entry.hasAppends).map(([file]) => file);
  }

  path(file: FileId): string {
    return this.#files.get(file)?.path ?? '';
  }

  /** The whole content; empty when the file has none. */
  content(file: FileId): Buffer {
    const entry = this.#files.get(file);
    const base = this.#content.get(file)?.content ?? Buffer.alloc(0);
    if (entry?.hasAppends !== true) return base;
    return Buffer.concat([base, ...this.#appends.all(file).map(({ content }) => content)]);
  }

  /** The whole content as text; what is not UTF-8 is replaced (it was never stored as rows). */
  text(file: FileId): string {
    const entry = this.#files.get(file);
    if (entry === undefined || entry.sizeBytes === 0) return '';
    return entry.text ?? this.content(file).toString('utf8');
  }

  /** The content of a save takes the place of all before. `text` is undefined for opaque content. */
  replace(
    file: FileId,
    path: string,
    attributes: FileAttributes,
    content: Uint8Array,
    text: string | undefined,
  ): void {
    const before = this.#files.get(file);
    if (before?.path === path) {
      this.#update.run(
        attributes.mode,
        attributes.uid,
        attributes.gid,
        attributes.accessedAtUs,
        attributes.modifiedAtUs,
        content,
        file,
      );
    } else {
      this.#insertFile(file, path, false, attributes, content);
    }
    if (before?.hasAppends === true) this.#deleteAppends.run(file);
    this.#remember(file, { path, sizeBytes: content.byteLength, hasAppends: false, text });
  }

  /** Adds a logger's bytes. */
  append(file: FileId, path: string, attributes: FileAttributes, lines: Uint8Array): void {
    const before = this.#files.get(file);
    if (before === undefined) {
      this.#insertFile(file, path, false, attributes, new Uint8Array());
    } else this.putAttributes(file, attributes);
    this.#append.run(file, lines);
    this.#remember(file, {
      path,
      sizeBytes: (before?.sizeBytes ?? 0) + lines.byteLength,
      hasAppends: true,
      text: undefined,
    });
  }

  /** Cuts the content, or extends it with NUL bytes, to `sizeBytes`. */
  truncate(file: FileId, sizeBytes: number): void {
    if (this.sizeBytes(file) === sizeBytes) return;
    const content = Buffer.alloc(sizeBytes);
    this.content(file).copy(content);
    this.setContent(file, content);
  }

  /** Puts `content` in the place of what is there, attributes unchanged. */
  setContent(file: FileId, content: Uint8Array): void {
    const before = this.#files.get(file);
    if (before === undefined) return;
    this.#updateContent.run(content, file);
    this.#deleteAppends.run(file);
    this.#remember(file, {
      ...before,
      sizeBytes: content.byteLength,
      hasAppends: false,
      text: undefined,
    });
  }

  /** A file or directory that has no save yet, or whose attributes changed. */
  put(file: FileId, path: string, isDirectory: boolean, attributes: FileAttributes): void {
    const before = this.#files.get(file);
    if (before?.path === path) {
      this.putAttributes(file, attributes);
      return;
    }
    this.#insertFile(file, path, isDirectory, attributes, this.content(file));
    this.#remember(file, {
      sizeBytes: 0,
      hasAppends: false,
      text: isDirectory ? undefined : '',
      ...before,
      path,
    });
  }

  putAttributes(file: FileId, attributes: FileAttributes): void {
    const { mode, uid, gid, accessedAtUs, modifiedAtUs } = attributes;
    this.#updateAttributes.run(mode, uid, gid, accessedAtUs, modifiedAtUs, file);
  }

  move(file: FileId, path: string): void {
    const before = this.#files.get(file);
    if (before === undefined) return;
    this.#updatePath.run(path, file);
    this.#undo.set(this.#files, file, { ...before, path });
  }

  remove(file: FileId): void {
    const before = this.#files.get(file);
    if (before === undefined) return;
    this.#delete.run(file);
    if (before.hasAppends) this.#deleteAppends.run(file);
    this.#undo.delete(this.#files, file);
    this.#textCharacters -= before.text?.length ?? 0;
  }

  /** Forgets the oldest texts while they are more than the bound. Call between transactions. */
  trimTexts(): void {
    if (this.#textCharacters <= this.#textCharactersMax) return;
    for (const [file, entry] of this.#files) {
      if (this.#textCharacters <= this.#textCharactersMax / 2) break;
      if (entry.text === undefined) continue;
      this.#textCharacters -= entry.text.length;
      this.#files.set(file, { ...entry, text: undefined });
    }
  }

  #insertFile(
    file: FileId,
    path: string,
    isDirectory: boolean,
    attributes: FileAttributes,
    content: Uint8Array,
  ): void {
    const { mode, uid, gid, accessedAtUs, modifiedAtUs } = attributes;
    const flag = isDirectory ? 1 : 0;
    this.#insert.run(file, path, flag, mode, uid, gid, accessedAtUs, modifiedAtUs, content);
  }

  #remember(file: FileId, entry: FileEntry): void {
    this.#textCharacters += (entry.text?.length ?? 0) - (this.#files.get(file)?.text?.length ?? 0);
    this.#undo.set(this.#files, file, entry);
  }
}
