/**
 * The port between a FUSE backend and the file system it serves. All calls come from one thread and return at once;
 * what has to wait for the disk returns {@link deferred} and is answered later, by token, through a ReplySink.
 *
 *   kernel --> backend (protocol) --> FileSystem (tree, handles, bytes) --> StoreClient --> store thread
 *      ^---------- reply by the backend, or by the store thread for a deferred token ----------/
 */

/** 0 and above: success. Below 0: an errno, negated as in the kernel. */
export type Result = number;
/** The reply follows from the store thread. Not a valid errno (those end at -4095). */
export const deferred: Result = -1_000_000;

/** Names a request until it is answered; the kernel's `unique` with dev-fuse. */
export type ReplyToken = bigint;
/** A node that the kernel knows; 1 is the root. Stable for persistent files over restarts of the agent. */
export type NodeId = number;
/** Below 2^48: backends keep bits of their own beside it in the kernel's 64. */
export type HandleId = number;

export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
}

export interface Attributes {
  readonly node: NodeId;
  /** Type and permission bits, as st_mode. */
  readonly mode: number;
  readonly linkCount: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly accessedAtUs: number;
  readonly modifiedAtUs: number;
  readonly changedAtUs: number;
}

/** The fields that setattr changes; absent ones stay. */
export interface AttributeChange {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly sizeBytes?: number;
  readonly accessedAtUs?: number | 'now';
  readonly modifiedAtUs?: number | 'now';
}

export interface Opened {
  readonly handle: HandleId;
  readonly node: NodeId;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly node: NodeId;
  /** Type bits of st_mode. */
  readonly type: number;
}

export interface FileSystemStatistics {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly freeBlocks: number;
  readonly files: number;
  readonly freeFiles: number;
  readonly nameBytesMax: number;
}

/** Linux open(2) flags arrive as the kernel's numbers. Names are UTF-8 text; backends answer EILSEQ for others. */
export interface FileSystem {
  lookup(parent: NodeId, name: string): Attributes | Result;
  /** The kernel dropped `count` references that lookup, create and mkdir gave it. */
  forget(node: NodeId, count: number): void;
  getAttributes(node: NodeId, handle: HandleId | undefined): Attributes | Result;
  /** A size change through a handle changes that handle's content; without one, the file's (truncate(2)). */
  setAttributes(
    node: NodeId,
    handle: HandleId | undefined,
    change: AttributeChange,
    caller: Caller,
  ): Attributes | Result;
  makeDirectory(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result;
  removeDirectory(parent: NodeId, name: string, caller: Caller): Result;
  readDirectory(node: NodeId): readonly DirectoryEntry[] | Result;
  create(
    parent: NodeId,
    name: string,
    mode: number,
    openFlags: number,
    caller: Caller,
  ): { readonly attributes: Attributes; readonly opened: Opened } | Result;
  /** mknod(2) of a regular file; other types are refused with EPERM. */
  makeNode(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result;
  open(node: NodeId, openFlags: number, caller: Caller): Opened | Result;
  read(node: NodeId, handle: HandleId, offset: number, byteCount: number): Uint8Array | Result;
  /** Returns the bytes written, or deferred for a logger's completed line. `data` is valid only during the call. */
  write(
    node: NodeId,
    handle: HandleId,
    offset: number,
    data: Uint8Array,
    caller: Caller,
    token: ReplyToken,
  ): Result;
  allocate(node: NodeId, handle: HandleId, offset: number, byteCount: number, mode: number): Result;
  /** One close(2) of one descriptor of the handle. */
  flush(node: NodeId, handle: HandleId, caller: Caller, token: ReplyToken): Result;
  sync(node: NodeId, handle: HandleId, token: ReplyToken): Result;
  /** The last descriptor is gone. Nobody waits for the answer. */
  release(node: NodeId, handle: HandleId): void;
  unlink(parent: NodeId, name: string, caller: Caller, token: ReplyToken): Result;
  /** `flags` as renameat2(2). */
  rename(
    parent: NodeId,
    name: string,
    newParent: NodeId,
    newName: string,
    flags: number,
    caller: Caller,
    token: ReplyToken,
  ): Result;
  statistics(): FileSystemStatistics;
  /** Takes in outcomes of the store thread; backends call it before each request they hand over. */
  settle(): void;
}
