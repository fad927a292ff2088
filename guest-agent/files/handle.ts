import type { HandleId } from '../fuse/file-system.ts';
import type { FileLocation } from '../store/store-request.ts';
import type { ByteBudget } from './growing-bytes.ts';
import { GrowingBytes } from './growing-bytes.ts';
import { openBits } from './linux.ts';
import type { FileNode } from './node.ts';

/** What an append that may fail took from its handle, to be put back if the same bytes may come again. */
export interface AppendUndo {
  readonly pending: Uint8Array;
  readonly sentBytes: number;
  readonly wasChanged: boolean;
  readonly changeCount: number;
}

/**
 * One open file. Its bytes, once it wrote or truncated, are its own until a save:
 *
 *   reads the file --(write, truncation)--> own bytes --(flush)--> own bytes, saved --(write)--> own bytes ...
 *
 * On an O_APPEND handle the own bytes are the unfinished line; on a scratch file's handle there are none.
 */
export class Handle {
  readonly id: HandleId;
  readonly file: FileNode;
  readonly isWritable: boolean;
  readonly isAppend: boolean;
  /** The table that this handle's saves go to; null for a scratch file. It outlives the file's name. */
  location: FileLocation | null;
  /** The whole content as this handle sees it, or with O_APPEND the unfinished line; null before the first change. */
  own: GrowingBytes | null = null;
  /** Written to since its bytes were last submitted. */
  isChanged = false;
  /** Counts changes, to know whether `own` is still what was submitted. */
  changeCount = 0;
  submittedChangeCount = 0;
  /** The file's truncationCount when its bytes were last submitted. */
  submittedTruncationCount = 0;
  /** Saves and appends in flight. */
  pendingCount = 0;
  /** With O_APPEND: how many bytes of the unfinished line are in the file already. */
  sentBytes = 0;
  appendUndo: AppendUndo | null = null;
  /** The smallest size it was cut to since its last save; null when it was not. */
  cutToBytes: number | null = null;
  /** The file's versionCount at that time. */
  cutAtVersion = 0;
  /** Something was submitted that may wait to be published. */
  isUnpublished = false;
  /** It made the file, with O_EXCL. */
  readonly holdsNewName: boolean;
  isReleased = false;
  /** What a reader of several pieces goes on reading, although the file was saved meanwhile. */
  pinned: Uint8Array | null = null;

  constructor(id: HandleId, file: FileNode, openFlags: number, holdsNewName: boolean) {
    this.id = id;
    this.file = file;
    this.isWritable = (openFlags & openBits.accessMode) !== 0;
    this.isAppend = (openFlags & openBits.append) !== 0;
    this.location = file.scratch === null ? file.location : null;
    this.holdsNewName = holdsNewName;
  }

  /** The handle's own bytes, empty at first. */
  ownBytes(budget: ByteBudget): GrowingBytes {
    this.own ??= new GrowingBytes(budget);
    return this.own;
  }

  markChanged(): void {
    this.isChanged = true;
    this.changeCount += 1;
  }

  /** With O_APPEND: what comes next begins a line, or an encrypted save, of its own. */
  dropUnfinished(): void {
    this.own?.resize(0);
    this.sentBytes = 0;
    this.appendUndo = null;
    this.isChanged = false;
    this.changeCount += 1;
  }

  cutTo(sizeBytes: number): void {
    this.cutToBytes = Math.min(this.cutToBytes ?? sizeBytes, sizeBytes);
    this.cutAtVersion = this.file.versionCount;
  }
}
