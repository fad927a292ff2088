import type { HandleId, ReplyToken, Result } from '../fuse/file-system.ts';
import { deferred } from '../fuse/file-system.ts';
import type { StoreOutcome } from '../store/store-request.ts';
import type { FileRequests, FileSystemParts } from './file-requests.ts';
import { type ByteBudget, type GrowingBytes, isBlank } from './growing-bytes.ts';
import { HandleReads, handleSizeBytes } from './handle-reads.ts';
import { Handle } from './handle.ts';
import { allocateBits, failure, openBits } from './linux.ts';
import type { FileNode, Node } from './node.ts';
import type { FileSystemOptions } from './options.ts';
import type { Tree } from './tree.ts';

const newline = 0x0a;
const noBytes = new Uint8Array(0);

export interface Budgets {
  readonly buffers: ByteBudget;
  readonly scratch: ByteBudget;
}

/** Handles are below 2^48, and begin at another number in each process; the wall clock's µs need 51 bits. */
const handleBaseMax = 2 ** 47;

/**
 * Open handles and the decision when their bytes become a save or an append (DESIGN: "Durable before close returns",
 * "Published at the end of the save", "Loggers"). Handle ids are never those of a former process.
 */
export class OpenFiles {
  readonly #parts: FileSystemParts;
  readonly #requests: FileRequests;
  readonly #tree: Tree;
  readonly #budgets: Budgets;
  readonly #options: FileSystemOptions;
  readonly reads: HandleReads;
  readonly #handles = new Map<number, Handle>();
  /** Handle ids are this and a small integer, which is the key above: such keys make the map fast. */
  readonly #baseId: HandleId;
  #lastKey = 0;
  #openCount = 0;

  constructor(
    parts: FileSystemParts,
    requests: FileRequests,
    tree: Tree,
    budgets: Budgets,
    options: FileSystemOptions,
  ) {
    this.#parts = parts;
    this.#requests = requests;
    this.#tree = tree;
    this.#budgets = budgets;
    this.#options = options;
    this.reads = new HandleReads(parts.contents, budgets.buffers);
    this.#baseId = parts.clock.wallUs() % handleBaseMax;
  }

  get openCount(): number {
    return this.#openCount;
  }

  /** Handles whose commits may wait to be published. */
  get heldCount(): number {
    let count = 0;
    for (const handle of this.#handles.values()) if (handle.isUnpublished) count += 1;
    return count;
  }

  handle(id: HandleId): Handle | undefined {
    return this.#handles.get(id - this.#baseId);
  }

  /** The file's open handles; for the rare changes of its name. */
  *handlesOf(file: FileNode): Generator<Handle> {
    for (const handle of this.#handles.values()) if (handle.file === file) yield handle;
  }

  /**
   * The one open handle of a file that has only one. The kernel names no handle for fstat(2), so this is whom it most
   * likely asks for: Python's mmap compares the size that it has set with what fstat shows.
   */
  onlyHandleOf(node: Node): Handle | undefined {
    if (node.kind !== 'file' || node.openCount !== 1) return undefined;
    return this.handlesOf(node).next().value ?? undefined;
  }

  hasRoom(): boolean {
    return this.#openCount < this.#options.handlesMax;
  }

  /** Opens a file; the caller has asked `hasRoom`. */
  open(file: FileNode, openFlags: number, isNew: boolean): Handle {
    this.#lastKey += 1;
    const holdsNewName = isNew && (openFlags & openBits.exclusive) !== 0;
    const handle = new Handle(this.#baseId + this.#lastKey, file, openFlags, holdsNewName);
    this.#handles.set(this.#lastKey, handle);
    this.#openCount += 1;
    file.openCount += 1;
    if ((openFlags & openBits.truncate) !== 0) this.#truncateAtOpen(handle);
    return handle;
  }

  write(handle: Handle, offset: number, data: Uint8Array, token: ReplyToken): Result {
    if (!handle.isWritable) return failure.EBADF;
    if (data.length === 0) return 0;
    handle.file.modifiedAtUs = this.#parts.clock.wallUs();
    handle.file.changedAtUs = handle.file.modifiedAtUs;
    if (handle.location === null) return this.#writeScratch(handle, offset, data);
    if (handle.isAppend) return this.#writeAppending(handle, data, token);
    if (offset + data.length > this.#options.fileBytesMax) return this.#refuse(failure.EFBIG);
    const own = this.#ownContent(handle);
    if (own === null || !own.write(offset, data)) return this.#refuse(failure.ENOSPC);
    handle.markChanged();
    return data.length;
  }

  /** fallocate(2): plain growth and holes; of a saved file's content only through the handle, as ftruncate(2). */
  allocate(handle: Handle, offset: number, byteCount: number, mode: number): Result {
    if (!handle.isWritable) return failure.EBADF;
    const end = offset + byteCount;
    const keepsSize = (mode & allocateBits.keepSize) !== 0;
    const zeroes = (mode & (allocateBits.punchHole | allocateBits.zeroRange)) !== 0;
    const known = allocateBits.keepSize | allocateBits.punchHole | allocateBits.zeroRange;
    if ((mode & ~known) !== 0) return failure.EOPNOTSUPP;
    if (zeroes && handle.isAppend) return failure.EOPNOTSUPP;
    if (zeroes) {
      const bytes = this.#writtenBytes(handle);
      if (bytes === null || !bytes.zero(offset, end)) return this.#refuse(failure.ENOSPC);
      handle.markChanged();
    }
    // With O_APPEND, NUL bytes before the next line would spoil it: room is promised, not shown.
    if (keepsSize || handle.isAppend || end <= handleSizeBytes(handle)) return 0;
    return this.resize(handle, end);
  }

  /** ftruncate(2). No save by itself; what readers see changes at RELEASE unless a save follows. */
  resize(handle: Handle, sizeBytes: number): Result {
    if (!handle.isWritable) return failure.EBADF;
    const { file } = handle;
    if (handle.location === null) return this.#resizeScratch(file, sizeBytes);
    if (sizeBytes > this.#options.fileBytesMax) return this.#refuse(failure.EFBIG);
    if (handle.isAppend) {
      handle.dropUnfinished();
      return this.truncate(file, sizeBytes);
    }
    const own = this.#ownContent(handle);
    if (own === null || !own.resize(sizeBytes)) return this.#refuse(failure.ENOSPC);
    handle.changeCount += 1;
    handle.cutTo(sizeBytes);
    return 0;
  }

  /** truncate(2): changes what readers see, and is no save. */
  truncate(file: FileNode, sizeBytes: number): Result {
    if (file.scratch !== null) return this.#resizeScratch(file, sizeBytes);
    if (sizeBytes > this.#options.fileBytesMax) return this.#refuse(failure.EFBIG);
    if (sizeBytes === file.sizeBytes && file.pendingCount === 0) return 0;
    const content = new Uint8Array(sizeBytes);
    content.set(this.#parts.contents.of(file).subarray(0, sizeBytes));
    this.#parts.contents.replace(file, content);
    file.truncationCount += 1;
    file.modifiedAtUs = this.#parts.clock.wallUs();
    file.changedAtUs = file.modifiedAtUs;
    this.#requests.putFile(file, sizeBytes);
    return 0;
  }

  flush(handle: Handle, token: ReplyToken): Result {
    const { location, own } = handle;
    if (location === null || own === null) return 0;
    // Another descriptor's close is on its way: this one must not return before it either.
    if (!handle.isChanged) return this.#afterPending(handle, token);
    if (handle.isAppend) return this.#appendUnfinished(handle, token, false) ? deferred : 0;
    return this.#saveOwn(handle, token, false) ? deferred : 0;
  }

  sync(handle: Handle, token: ReplyToken): Result {
    const { location } = handle;
    if (location === null) return 0;
    if (handle.isChanged && handle.isAppend) {
      if (this.#appendUnfinished(handle, token, true)) {
        // Encrypted bytes appended later are another save; an unencrypted line may still be finished.
        if (handle.file.area === 'encrypted') handle.dropUnfinished();
        return deferred;
      }
    } else if (handle.isChanged && this.#saveOwn(handle, token, true)) return deferred;
    if (!handle.isUnpublished && handle.pendingCount === 0) return 0;
    this.#requests.publish(handle, token);
    return deferred;
  }

  release(handle: Handle): void {
    const { file, location } = handle;
    handle.isReleased = true;
    this.#openCount -= 1;
    file.openCount -= 1;
    if (location !== null) {
      if (handle.isChanged && handle.isAppend) this.#appendUnfinished(handle, null, false);
      else if (handle.isChanged) this.#saveOwn(handle, null, true);
      if (handle.isUnpublished) this.#requests.publish(handle, null);
      this.#applyCut(handle);
      if (!file.isKnown && file.pendingCount === 0) this.#requests.putFile(file, null);
    }
    this.reads.unpin(handle);
    if (handle.pendingCount === 0) this.#discard(handle);
    if (file.openCount === 0) this.#tree.dropIfUnused(file);
  }

  /** Takes in what became of a handle's save or append. */
  settle(outcome: StoreOutcome): void {
    const handle = this.handle(outcome.handle);
    if (handle === undefined || handle.pendingCount === 0) {
      this.#settleLate(outcome);
      return;
    }
    const { file } = handle;
    handle.pendingCount -= 1;
    file.pendingCount -= 1;
    if (outcome.result < 0) this.#settleFailure(handle, outcome);
    else if (file.location !== null) this.#settleSuccess(handle, outcome);
    else this.#parts.counters.forwarded += 1;
    if (handle.isReleased && handle.pendingCount === 0) this.#discard(handle);
  }

  /** The store tried again what nobody waited for: only it knows the content now. */
  #settleLate(outcome: StoreOutcome): void {
    const file = this.#tree.node(outcome.file);
    if (outcome.result < 0 || file?.kind !== 'file' || file.location === null) return;
    this.#parts.contents.forget(file);
    file.sizeBytes = outcome.sizeBytes;
    file.isKnown = true;
  }

  #settleSuccess(handle: Handle, outcome: StoreOutcome): void {
    const { file, own } = handle;
    this.#parts.counters.forwarded += 1;
    file.isKnown = true;
    if (handle.submittedTruncationCount !== file.truncationCount) {
      // The truncation came after it, in the store too; what is left of it is only known there.
      if (file.sizeBytes > 0) this.#parts.contents.forget(file);
      return;
    }
    const isOwn =
      own !== null &&
      outcome.kind === 'save' &&
      handle.pendingCount === 0 &&
      handle.changeCount === handle.submittedChangeCount;
    if (isOwn) {
      this.#parts.contents.replace(file, own.share());
      return;
    }
    this.#parts.contents.forget(file);
    file.sizeBytes = outcome.sizeBytes;
  }

  #settleFailure(handle: Handle, outcome: StoreOutcome): void {
    const { file, own, appendUndo } = handle;
    this.#parts.counters.failed += 1;
    if (outcome.kind === 'append' && own !== null && appendUndo !== null) {
      const isLatest = appendUndo.changeCount === handle.changeCount && handle.pendingCount === 0;
      const mayComeAgain = outcome.result !== failure.EINVAL && outcome.result !== failure.EFBIG;
      if (isLatest) {
        own.resize(0);
        if (mayComeAgain) own.write(0, appendUndo.pending);
        handle.sentBytes = mayComeAgain ? appendUndo.sentBytes : 0;
        handle.isChanged = mayComeAgain && appendUndo.wasChanged;
      }
      handle.appendUndo = null;
    }
    const isForgotten = !file.isKnown && file.pendingCount === 0 && file.openCount === 0;
    if (isForgotten) this.#requests.putFileLater(file, null);
  }

  #truncateAtOpen(handle: Handle): void {
    const { file } = handle;
    if (handle.location === null) {
      file.scratch?.resize(0);
      file.sizeBytes = 0;
    } else if (handle.isAppend || !handle.isWritable) this.truncate(file, 0);
    else {
      handle.ownBytes(this.#budgets.buffers);
      handle.cutTo(0);
    }
  }

  #writeScratch(handle: Handle, offset: number, data: Uint8Array): Result {
    const { scratch } = handle.file;
    if (scratch === null) return failure.EIO;
    if (!scratch.write(handle.isAppend ? scratch.length : offset, data)) {
      return this.#refuse(failure.ENOSPC);
    }
    handle.file.sizeBytes = scratch.length;
    handle.markChanged();
    return data.length;
  }

  #resizeScratch(file: FileNode, sizeBytes: number): Result {
    if (file.scratch?.resize(sizeBytes) !== true) return this.#refuse(failure.ENOSPC);
    file.sizeBytes = sizeBytes;
    file.modifiedAtUs = this.#parts.clock.wallUs();
    return 0;
  }

  #writeAppending(handle: Handle, data: Uint8Array, token: ReplyToken): Result {
    const { location, file } = handle;
    const own = handle.ownBytes(this.#budgets.buffers);
    if (own.length + data.length > this.#options.fileBytesMax) return this.#refuse(failure.EFBIG);
    // Encrypted content has no lines: all that a handle appends is one save.
    const lineBytes = file.area === 'encrypted' ? 0 : data.lastIndexOf(newline) + 1;
    if (lineBytes === 0 || location === null) {
      if (!own.write(own.length, data)) return this.#refuse(failure.ENOSPC);
      handle.markChanged();
      return data.length;
    }
    const pending = own.length === 0 ? noBytes : own.share();
    const { sentBytes, isChanged: wasChanged } = handle;
    let lines = data.subarray(0, lineBytes);
    if (pending.length > 0) {
      lines = new Uint8Array(pending.length + lineBytes);
      lines.set(pending);
      lines.set(data.subarray(0, lineBytes), pending.length);
    }
    // The part after the newline is this handle's new unfinished line, once the rest is submitted.
    own.resize(0);
    if (lineBytes < data.length && !own.write(0, data.subarray(lineBytes))) {
      own.write(0, pending);
      return this.#refuse(failure.ENOSPC);
    }
    handle.changeCount += 1;
    this.#requests.append(handle, location, lines, token, data.length, false);
    handle.sentBytes = 0;
    handle.appendUndo = { pending, sentBytes, wasChanged, changeCount: handle.changeCount };
    handle.isChanged = lineBytes < data.length;
    return deferred;
  }

  /** Submits the unfinished line; false when it is no save: empty, or only NUL bytes. */
  #appendUnfinished(handle: Handle, token: ReplyToken | null, publishes: boolean): boolean {
    const { location, own } = handle;
    handle.isChanged = false;
    if (location === null || own === null || isBlank(own.view())) return false;
    const { sentBytes } = handle;
    this.#requests.append(handle, location, own.view(), token, null, publishes);
    const pending = own.share();
    handle.appendUndo = { pending, sentBytes, wasChanged: false, changeCount: handle.changeCount };
    handle.sentBytes = own.length;
    return true;
  }

  /** Submits the handle's content; false when it is no save: empty, or only NUL bytes. */
  #saveOwn(handle: Handle, token: ReplyToken | null, publishes: boolean): boolean {
    const { location, own } = handle;
    if (location === null || own === null) return false;
    const content = own.view();
    handle.isChanged = false;
    if (isBlank(content)) return false;
    this.#requests.save(handle, location, content, token, publishes);
    return true;
  }

  #afterPending(handle: Handle, token: ReplyToken): Result {
    if (handle.pendingCount === 0) return 0;
    if (handle.isAppend || !this.#saveOwn(handle, token, false)) {
      this.#requests.publish(handle, token);
    }
    return deferred;
  }

  /** A handle that cut the file and then did not save: readers see the cut from its RELEASE on, unless another wrote. */
  #applyCut(handle: Handle): void {
    const { file, own, cutToBytes } = handle;
    if (cutToBytes === null || own === null || file.location === null) return;
    if (handle.cutAtVersion !== file.versionCount) return;
    if (cutToBytes < file.sizeBytes) this.truncate(file, cutToBytes);
    if (own.length !== file.sizeBytes) this.truncate(file, own.length);
  }

  #writtenBytes(handle: Handle): GrowingBytes | null {
    return handle.location === null ? handle.file.scratch : this.#ownContent(handle);
  }

  /** The handle's copy of the content, taken from the file's last good one at its first change; null without room. */
  #ownContent(handle: Handle): GrowingBytes | null {
    if (handle.own !== null) return handle.own;
    const own = handle.ownBytes(this.#budgets.buffers);
    if (own.write(0, this.#parts.contents.of(handle.file))) return own;
    handle.own = null;
    return null;
  }

  #discard(handle: Handle): void {
    handle.own?.clear();
    this.#handles.delete(handle.id - this.#baseId);
  }

  #refuse(result: Result): Result {
    this.#parts.counters.dropAtOnce();
    return result;
  }
}
