import assert from 'node:assert';

import type { Area } from '../../common/channel/area.ts';
import type { ReplyToken } from '../../guest-agent/fuse/file-system.ts';
import type {
  AppendRequest,
  ContentReader,
  FileAttributes,
  FileId,
  FileLocation,
  PersistentFile,
  RenameRequest,
  SaveRequest,
  StoreClient,
  StoreOutcome,
  StoreRequest,
} from '../../guest-agent/store/store-request.ts';

export interface MemoryRow {
  /** Area and path, as `unencrypted/cpu`. */
  table: string;
  readonly text: string;
  readonly file: FileId;
  readonly handle: number;
  isPublished: boolean;
}

interface StoredFile {
  location: FileLocation;
  attributes: FileAttributes;
  content: Uint8Array;
  readonly isDirectory: boolean;
}

interface Reply {
  readonly result: number;
  readonly writtenBytes: number | null;
}

/**
 * A store that keeps what requests ask for in memory: nothing happens until `commit`, outcomes come before replies, a row
 * is a save's whole text or a logger's line. It throws where requests contradict what it holds.
 */
export class MemoryStore implements StoreClient, ContentReader {
  readonly requests: StoreRequest[] = [];
  readonly rows: MemoryRow[] = [];
  readonly #queue: StoreRequest[] = [];
  readonly #outcomes: StoreOutcome[] = [];
  readonly #replies = new Map<ReplyToken, Reply>();
  readonly #files = new Map<FileId, StoredFile>();
  readonly #failures: number[] = [];
  contentReadCount = 0;

  submit(request: StoreRequest): void {
    const copy = copyOf(request);
    this.requests.push(copy);
    this.#queue.push(copy);
  }

  drain(take: (outcome: StoreOutcome) => void): void {
    for (const outcome of this.#outcomes.splice(0)) take(outcome);
  }

  /** The next requests that can fail get these errnos, 0 for success. */
  failNext(...results: readonly number[]): void {
    this.#failures.push(...results);
  }

  commit(): void {
    for (const request of this.#queue.splice(0)) this.#apply(request);
  }

  /** The process died: what was not committed is gone. */
  lose(): void {
    this.#queue.length = 0;
    this.#outcomes.length = 0;
    for (const row of this.rows) row.isPublished = true;
  }

  reply(token: ReplyToken): Reply | undefined {
    return this.#replies.get(token);
  }

  /** The published rows' texts, oldest first. */
  published(table: string): string[] {
    return this.rows.filter((row) => row.table === table && row.isPublished).map((row) => row.text);
  }

  list(): readonly PersistentFile[] {
    return [...this.#files].map(([file, stored]) => ({
      file,
      location: stored.location,
      isDirectory: stored.isDirectory,
      attributes: stored.attributes,
      sizeBytes: stored.content.length,
    }));
  }

  content(area: Area, file: FileId): Uint8Array {
    this.contentReadCount += 1;
    const stored = this.#files.get(file);
    assert(stored === undefined || stored.location.area === area, 'content of another area');
    return stored?.content ?? new Uint8Array(0);
  }

  /** Makes a logger's content small, as compaction does; the next outcome says so. */
  readonly compactTo = new Map<FileId, Uint8Array>();

  #apply(request: StoreRequest): void {
    let result = 0;
    const canFail = request.kind !== 'publish' && !request.kind.startsWith('put-');
    if (canFail) result = this.#failures.shift() ?? 0;
    if (result === 0) this.#perform(request);
    const file = request.kind === 'publish' ? 0 : request.file;
    const handle = 'handle' in request ? request.handle : 0;
    const sizeBytes = this.#files.get(file)?.content.length ?? 0;
    this.#outcomes.push({ kind: request.kind, file, handle, result, sizeBytes });
    if (!('token' in request) || request.token === null) return;
    const writtenBytes = request.kind === 'append' ? request.writtenBytes : null;
    assert(!this.#replies.has(request.token), 'answered twice');
    this.#replies.set(request.token, { result, writtenBytes });
  }

  #perform(request: StoreRequest): void {
    switch (request.kind) {
      case 'save':
        this.#save(request);
        return;
      case 'append':
        this.#append(request);
        return;
      case 'publish':
        for (const row of this.rows) if (row.handle === request.handle) row.isPublished = true;
        return;
      case 'rename':
        this.#rename(request);
        return;
      case 'put-file':
        this.#putFile(request.file, request.location, request.attributes, false);
        if (request.truncatedToBytes !== null) this.#cut(request.file, request.truncatedToBytes);
        return;
      case 'put-directory':
        this.#putFile(request.file, request.location, request.attributes, true);
        return;
      case 'remove':
        assert(this.#files.has(request.file), 'removal of an unknown file');
        this.#files.delete(request.file);
        for (const row of this.rows) if (row.file === request.file) row.isPublished = true;
        return;
    }
  }

  #save(request: SaveRequest): void {
    assert(
      request.content.some((byte) => byte !== 0),
      'a blank save',
    );
    this.#dropHeld(request.handle);
    if (request.replaced !== null) {
      assert(this.#files.delete(request.replaced), 'replaced file unknown');
    }
    this.#addRow(request, Buffer.from(request.content).toString(), request.publishes);
    if (request.filePath === null) return;
    const location = { area: request.location.area, path: request.filePath };
    this.#putFile(request.file, location, request.attributes, false);
    this.#stored(request.file).content = request.content;
  }

  #append(request: AppendRequest): void {
    const text = Buffer.from(request.lines).toString();
    assert(request.endsUnfinished || text.endsWith('\n'), 'an unfinished line');
    if (request.resentBytes > 0) this.#dropHeld(request.handle);
    const isOpaque = request.location.area === 'encrypted';
    const lines = isOpaque ? [text] : text.split('\n').filter((line) => line !== '');
    for (const [index, line] of lines.entries()) {
      const isHeld = index === lines.length - 1 && request.endsUnfinished && !request.publishes;
      this.#addRow(request, line, !isHeld);
    }
    if (request.filePath === null) return;
    const location = { area: request.location.area, path: request.filePath };
    this.#putFile(request.file, location, request.attributes, false);
    const stored = this.#stored(request.file);
    const added = request.lines.subarray(request.resentBytes);
    stored.content = this.compactTo.get(request.file) ?? Buffer.concat([stored.content, added]);
  }

  #rename(request: RenameRequest): void {
    if (request.replaced !== null) {
      assert(this.#files.delete(request.replaced), 'replaced file unknown');
    }
    const stored = this.#stored(request.file);
    assert.deepStrictEqual(stored.location, request.from);
    this.#assertFree(request.to, request.file);
    stored.location = request.to;
    const held = this.rows.filter((row) => row.file === request.file && !row.isPublished);
    if (!request.saves) return;
    for (const row of held) row.table = tableOf(request.to);
    if (held.length > 0 || stored.content.length === 0) return;
    this.#addRow(
      { location: request.to, file: request.file, handle: 0 },
      Buffer.from(stored.content).toString(),
      true,
    );
  }

  #putFile(
    file: FileId,
    location: FileLocation,
    attributes: FileAttributes,
    isDirectory: boolean,
  ): void {
    this.#assertFree(location, file);
    const stored = this.#files.get(file);
    if (stored === undefined) {
      const content = new Uint8Array(0);
      this.#files.set(file, { location, attributes, content, isDirectory });
      return;
    }
    assert.deepStrictEqual(stored.location, location, 'moved without a rename');
    stored.attributes = attributes;
  }

  #cut(file: FileId, sizeBytes: number): void {
    const content = new Uint8Array(sizeBytes);
    content.set(this.#stored(file).content.subarray(0, sizeBytes));
    this.#stored(file).content = content;
  }

  #assertFree(location: FileLocation, file: FileId): void {
    for (const [other, stored] of this.#files) {
      const isSame = tableOf(stored.location) === tableOf(location);
      assert(other === file || !isSame, `two files at ${tableOf(location)}`);
    }
  }

  #addRow(
    of: { readonly location: FileLocation; readonly file: FileId; readonly handle: number },
    text: string,
    isPublished: boolean,
  ): void {
    const table = tableOf(of.location);
    this.rows.push({ table, text, file: of.file, handle: of.handle, isPublished });
  }

  #dropHeld(handle: number): void {
    if (handle === 0) return;
    const kept = this.rows.filter((row) => row.handle !== handle || row.isPublished);
    this.rows.splice(0, this.rows.length, ...kept);
  }

  #stored(file: FileId): StoredFile {
    const stored = this.#files.get(file);
    assert(stored !== undefined, 'a file that the store does not know');
    return stored;
  }
}

function tableOf(location: FileLocation): string {
  return `${location.area}/${location.path}`;
}

/** What a queue between threads does: nothing of the request is shared afterwards. */
function copyOf(request: StoreRequest): StoreRequest {
  if (request.kind === 'publish' || request.kind === 'remove' || request.kind === 'rename') {
    return { ...request };
  }
  const { mode, uid, gid, accessedAtUs, modifiedAtUs } = request.attributes;
  const attributes = { mode, uid, gid, accessedAtUs, modifiedAtUs };
  if (request.kind === 'save') return { ...request, attributes, content: request.content.slice() };
  if (request.kind === 'append') return { ...request, attributes, lines: request.lines.slice() };
  return { ...request, attributes };
}
