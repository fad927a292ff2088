import type { Clock } from '../../common/runtime/clock.ts';
import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { ReplyToken } from '../fuse/file-system.ts';
import type { FileLocation, StoreClient } from '../store/store-request.ts';
import type { Contents } from './contents.ts';
import type { Handle } from './handle.ts';
import type { DirectoryNode, FileNode } from './node.ts';

/** What the parts of the file system share. */
export interface FileSystemParts {
  readonly store: StoreClient;
  readonly clock: Clock;
  readonly contents: Contents;
  readonly counters: StageCounters;
}

/** Builds the requests to the store and keeps count of what is in flight. */
export class FileRequests {
  readonly #parts: FileSystemParts;
  /** Files to put once the outcomes at hand are taken in: nothing is submitted from within a drain. */
  readonly #toPut = new Map<FileNode, number | null>();

  constructor(parts: FileSystemParts) {
    this.#parts = parts;
  }

  /** The handle's whole content becomes a save. */
  save(
    handle: Handle,
    location: FileLocation,
    content: Uint8Array,
    token: ReplyToken | null,
    publishes: boolean,
  ): void {
    const { file } = handle;
    this.#track(handle);
    handle.cutToBytes = null;
    handle.isUnpublished = !publishes;
    this.#parts.store.submit({
      kind: 'save',
      token,
      handle: handle.id,
      file: file.node,
      location,
      filePath: file.location === null ? null : file.location.path,
      replaced: null,
      attributes: file,
      content,
      savedAtUs: this.#parts.clock.wallUs(),
      holdsNewName: handle.holdsNewName,
      publishes,
    });
  }

  /** Bytes at the end of the file become rows. */
  append(
    handle: Handle,
    location: FileLocation,
    lines: Uint8Array,
    token: ReplyToken | null,
    writtenBytes: number | null,
    publishes: boolean,
  ): void {
    const { file } = handle;
    const endsUnfinished = writtenBytes === null;
    this.#track(handle);
    // Completed lines are published at once, but for a first one that may turn out to be labels.
    handle.isUnpublished = true;
    this.#parts.store.submit({
      kind: 'append',
      token,
      writtenBytes,
      handle: handle.id,
      file: file.node,
      location,
      filePath: file.location === null ? null : file.location.path,
      attributes: file,
      lines,
      resentBytes: handle.sentBytes,
      endsUnfinished,
      publishes,
      savedAtUs: this.#parts.clock.wallUs(),
    });
  }

  publish(handle: Handle, token: ReplyToken | null): void {
    handle.isUnpublished = false;
    this.#parts.store.submit({ kind: 'publish', token, handle: handle.id });
  }

  /** Makes a file's existence, attributes or truncation durable; nothing for a file that is not for the store. */
  putFile(file: FileNode, truncatedToBytes: number | null): void {
    if (file.location === null) return;
    file.isKnown = true;
    this.#parts.store.submit({
      kind: 'put-file',
      file: file.node,
      location: file.location,
      attributes: file,
      truncatedToBytes,
    });
  }

  /** Puts the file with the next `submitPostponed`. */
  putFileLater(file: FileNode, truncatedToBytes: number | null): void {
    this.#toPut.set(file, truncatedToBytes);
  }

  /** What taking in outcomes brought about. */
  submitPostponed(): void {
    if (this.#toPut.size === 0) return;
    for (const [file, truncatedToBytes] of this.#toPut) this.putFile(file, truncatedToBytes);
    this.#toPut.clear();
  }

  putDirectory(directory: DirectoryNode): void {
    // The areas themselves are made by configuration.
    if (directory.area === null || directory.path === '' || directory.isScratch) return;
    this.#parts.store.submit({
      kind: 'put-directory',
      file: directory.node,
      location: { area: directory.area, path: directory.path },
      attributes: directory,
    });
  }

  #track(handle: Handle): void {
    this.#parts.counters.accepted += 1;
    handle.isChanged = false;
    handle.pendingCount += 1;
    handle.submittedChangeCount = handle.changeCount;
    handle.submittedTruncationCount = handle.file.truncationCount;
    handle.file.pendingCount += 1;
    handle.file.versionCount += 1;
  }
}
