import type { Clock } from '../../common/runtime/clock.ts';
import { type StageCounts, StageCounters } from '../../common/runtime/stage-counters.ts';
import type {
  AttributeChange,
  Attributes,
  Caller,
  DirectoryEntry,
  FileSystem,
  FileSystemStatistics,
  HandleId,
  NodeId,
  Opened,
  ReplyToken,
  Result,
} from '../fuse/file-system.ts';
import type { ContentReader, StoreClient, StoreOutcome } from '../store/store-request.ts';
import { applyChange, attributesWithSize } from './attributes.ts';
import { Contents } from './contents.ts';
import { FileRequests } from './file-requests.ts';
import { ByteBudget, GrowingBytes } from './growing-bytes.ts';
import { handleSizeBytes } from './handle-reads.ts';
import { failure, modeBits, openBits } from './linux.ts';
import { NameChanges } from './name-changes.ts';
import { NameRules } from './name-rules.ts';
import { DirectoryNode, FileNode, type Node } from './node.ts';
import { type Budgets, OpenFiles } from './open-files.ts';
import type { FileSystemOptions } from './options.ts';
import { Tree } from './tree.ts';

export interface FileSystemDependencies {
  readonly store: StoreClient;
  readonly content: ContentReader;
  readonly clock: Clock;
  /** Bytes of the fuller database, for statfs(2). */
  readonly storedBytes: () => number;
  /** Called at the end of each {@link KpiFileSystem.settle}, so before each request. */
  readonly onSettled?: () => void;
}

/** What the file system holds now, and what it did since it started. */
export interface FileSystemSnapshot {
  /** accepted: saves and appends handed over; forwarded: committed; failed: not; dropped: refused by a bound. */
  readonly counts: StageCounts;
  readonly fileCount: number;
  readonly directoryCount: number;
  readonly handleCount: number;
  /** Handles whose commits may wait to be published. */
  readonly heldCount: number;
  readonly scratchBytes: number;
  readonly bufferBytes: number;
  readonly cacheBytes: number;
}

const nameBytesMax = 255;
const blockBytes = 4_096;

/**
 * The file system of the mount: the two areas, files whose saves are rows, and scratch files in memory. Synchronous and of
 * one thread; every answer that needs the disk is deferred to the store thread. Attributes and bytes that it returns are
 * live: read them before the next call. Permissions are checked by the kernel (mount option `default_permissions`).
 */
export class KpiFileSystem implements FileSystem {
  readonly #clock: Clock;
  readonly #onSettled: (() => void) | undefined;
  readonly #storedBytes: () => number;
  readonly #options: FileSystemOptions;
  readonly #store: StoreClient;
  readonly #tree: Tree;
  readonly #contents: Contents;
  readonly #requests: FileRequests;
  readonly #openFiles: OpenFiles;
  readonly #nameChanges: NameChanges;
  readonly #rules: NameRules;
  readonly #budgets: Budgets;
  readonly #counters = new StageCounters();
  readonly #takeOutcome = (outcome: StoreOutcome): void => {
    if (this.#nameChanges.settle(outcome)) return;
    if (outcome.kind === 'save' || outcome.kind === 'append') this.#openFiles.settle(outcome);
  };

  constructor(deps: FileSystemDependencies, options: FileSystemOptions) {
    const { clock, store } = deps;
    this.#clock = clock;
    this.#onSettled = deps.onSettled;
    this.#storedBytes = deps.storedBytes;
    this.#store = store;
    this.#options = options;
    this.#rules = new NameRules(options.names);
    this.#budgets = {
      buffers: new ByteBudget(options.bufferBytesMax),
      scratch: new ByteBudget(options.scratchBytesMax),
    };
    this.#contents = new Contents(deps.content, options.cacheBytesMax);
    const parts = { store, clock, contents: this.#contents, counters: this.#counters };
    this.#tree = new Tree(options, clock.wallUs());
    this.#requests = new FileRequests(parts);
    this.#openFiles = new OpenFiles(parts, this.#requests, this.#tree, this.#budgets, options);
    this.#nameChanges = new NameChanges({
      parts,
      requests: this.#requests,
      tree: this.#tree,
      openFiles: this.#openFiles,
      rules: this.#rules,
      scratch: this.#budgets.scratch,
      buffers: this.#budgets.buffers,
      fileBytesMax: options.fileBytesMax,
    });
  }

  /** A file system with everything that the store knows: what was saved before the agent's restart. */
  static restore(deps: FileSystemDependencies, options: FileSystemOptions): KpiFileSystem {
    const fileSystem = new KpiFileSystem(deps, options);
    fileSystem.#tree.restore(deps.content.list(), deps.clock.wallUs());
    return fileSystem;
  }

  snapshot(): FileSystemSnapshot {
    return {
      counts: this.#counters.snapshot(),
      fileCount: this.#tree.fileCount,
      directoryCount: this.#tree.directoryCount,
      handleCount: this.#openFiles.openCount,
      heldCount: this.#openFiles.heldCount,
      scratchBytes: this.#budgets.scratch.usedBytes,
      bufferBytes: this.#budgets.buffers.usedBytes,
      cacheBytes: this.#contents.cachedBytes,
    };
  }

  settle(): void {
    this.#store.drain(this.#takeOutcome);
    this.#requests.submitPostponed();
    this.#onSettled?.();
  }

  lookup(parent: NodeId, name: string): Attributes | Result {
    const directory = this.#tree.directory(parent);
    if (typeof directory === 'number') return directory;
    const node = directory.children.get(name);
    return node === undefined ? failure.ENOENT : referenced(node);
  }

  forget(id: NodeId, count: number): void {
    const node = this.#tree.node(id);
    if (node === undefined) return;
    // A former process may have given out more references than this one knows of.
    node.lookupCount = Math.max(0, node.lookupCount - count);
    this.#tree.dropIfUnused(node);
  }

  getAttributes(id: NodeId, handleId: HandleId | undefined): Attributes | Result {
    const node = this.#tree.node(id);
    if (node === undefined) return failure.ESTALE;
    const handle =
      handleId === undefined
        ? this.#openFiles.onlyHandleOf(node)
        : this.#openFiles.handle(handleId);
    if (handle === undefined) return node;
    const sizeBytes = handleSizeBytes(handle);
    return sizeBytes === node.sizeBytes ? node : attributesWithSize(node, sizeBytes);
  }

  setAttributes(
    id: NodeId,
    handleId: HandleId | undefined,
    change: AttributeChange,
    _caller: Caller,
  ): Attributes | Result {
    const node = this.#tree.node(id);
    if (node === undefined) return failure.ESTALE;
    if (change.sizeBytes !== undefined) {
      if (node.kind === 'directory') return failure.EISDIR;
      const result = this.#resize(node, handleId, change.sizeBytes);
      if (result < 0) return result;
    }
    if (applyChange(node, change, this.#clock.wallUs())) this.#persistAttributes(node);
    return this.getAttributes(id, handleId);
  }

  makeDirectory(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result {
    const directory = this.#placeForNew(parent, name, 'directory');
    if (typeof directory === 'number') return directory;
    if (directory.children.has(name)) return failure.EEXIST;
    const isScratch = directory.isScratch || this.#rules.ofNewFile(name, false) === 'scratch';
    const refusal = isScratch ? 0 : this.#tree.checkStoredName(directory, name, null);
    if (refusal < 0) return refusal;
    const inherited = directory.mode & modeBits.setGroupId;
    const gid = inherited === 0 ? caller.gid : directory.gid;
    const node = new DirectoryNode(
      this.#tree.nextId(),
      name,
      { mode: mode | inherited, uid: caller.uid, gid },
      { area: directory.area, path: directory.childPath(name), isScratch },
      this.#clock.wallUs(),
    );
    this.#tree.add(directory, node);
    this.#requests.putDirectory(node);
    return referenced(node);
  }

  removeDirectory(parent: NodeId, name: string, _caller: Caller): Result {
    return this.#nameChanges.removeDirectory(parent, name);
  }

  /** Without `.` and `..`, which the backends know themselves. */
  readDirectory(id: NodeId): readonly DirectoryEntry[] | Result {
    const directory = this.#tree.directory(id);
    if (typeof directory === 'number') return directory;
    return Array.from(directory.children.values(), (child) => ({
      name: child.name,
      node: child.node,
      type: child.mode & modeBits.type,
    }));
  }

  create(
    parent: NodeId,
    name: string,
    mode: number,
    openFlags: number,
    caller: Caller,
  ): { readonly attributes: Attributes; readonly opened: Opened } | Result {
    const existing = this.#tree.node(parent);
    const found = existing?.kind === 'directory' ? existing.children.get(name) : undefined;
    const isExclusive = (openFlags & openBits.exclusive) !== 0;
    if (found !== undefined) {
      if (isExclusive) return failure.EEXIST;
      const opened = this.open(found.node, openFlags, caller);
      return typeof opened === 'number' ? opened : { attributes: referenced(found), opened };
    }
    if (!this.#openFiles.hasRoom()) return failure.ENFILE;
    const file = this.#make(parent, name, mode, isExclusive, caller);
    if (typeof file === 'number') return file;
    const handle = this.#openFiles.open(file, openFlags, true);
    return { attributes: referenced(file), opened: { handle: handle.id, node: file.node } };
  }

  makeNode(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result {
    const type = mode & modeBits.type;
    if (type !== 0 && type !== modeBits.regular) return failure.EPERM;
    const directory = this.#tree.directory(parent);
    if (typeof directory === 'number') return directory;
    if (directory.children.has(name)) return failure.EEXIST;
    const file = this.#make(parent, name, mode, false, caller);
    if (typeof file === 'number') return file;
    this.#requests.putFile(file, null);
    return referenced(file);
  }

  open(id: NodeId, openFlags: number, _caller: Caller): Opened | Result {
    const file = this.#tree.node(id);
    if (file === undefined) return failure.ESTALE;
    if (file.kind === 'directory') return failure.EISDIR;
    // Without a name and without bytes in memory there is nothing to open; the kernel looks the path up again.
    if (file.scratch === null && file.location === null) return failure.ESTALE;
    if (!this.#openFiles.hasRoom()) return failure.ENFILE;
    const handle = this.#openFiles.open(file, openFlags, false);
    return { handle: handle.id, node: id };
  }

  read(id: NodeId, handleId: HandleId, offset: number, byteCount: number): Uint8Array | Result {
    const node = this.#tree.node(id);
    if (node === undefined) return failure.ESTALE;
    if (node.kind === 'directory') return failure.EISDIR;
    return this.#openFiles.reads.read(this.#openFiles.handle(handleId), node, offset, byteCount);
  }

  write(
    _id: NodeId,
    handleId: HandleId,
    offset: number,
    data: Uint8Array,
    _caller: Caller,
    token: ReplyToken,
  ): Result {
    const handle = this.#openFiles.handle(handleId);
    return handle === undefined ? failure.EIO : this.#openFiles.write(handle, offset, data, token);
  }

  allocate(
    _id: NodeId,
    handleId: HandleId,
    offset: number,
    byteCount: number,
    mode: number,
  ): Result {
    const handle = this.#openFiles.handle(handleId);
    return handle === undefined
      ? failure.EIO
      : this.#openFiles.allocate(handle, offset, byteCount, mode);
  }

  flush(_id: NodeId, handleId: HandleId, _caller: Caller, token: ReplyToken): Result {
    const handle = this.#openFiles.handle(handleId);
    return handle === undefined ? failure.EIO : this.#openFiles.flush(handle, token);
  }

  sync(_id: NodeId, handleId: HandleId, token: ReplyToken): Result {
    const handle = this.#openFiles.handle(handleId);
    return handle === undefined ? failure.EIO : this.#openFiles.sync(handle, token);
  }

  release(_id: NodeId, handleId: HandleId): void {
    const handle = this.#openFiles.handle(handleId);
    if (handle !== undefined && !handle.isReleased) this.#openFiles.release(handle);
  }

  unlink(parent: NodeId, name: string, _caller: Caller, token: ReplyToken): Result {
    return this.#nameChanges.unlink(parent, name, token);
  }

  rename(
    parent: NodeId,
    name: string,
    newParent: NodeId,
    newName: string,
    flags: number,
    _caller: Caller,
    token: ReplyToken,
  ): Result {
    if (Buffer.byteLength(newName) > nameBytesMax) return failure.ENAMETOOLONG;
    return this.#nameChanges.rename(parent, name, newParent, newName, flags, token);
  }

  /** Full means that rows go for new ones, acknowledged ones first: saves go on. */
  statistics(): FileSystemStatistics {
    const nodeCount = this.#tree.fileCount + this.#tree.directoryCount;
    const { scratch, buffers } = this.#budgets;
    const usedBytes = this.#storedBytes() + scratch.usedBytes + buffers.usedBytes;
    const freeBytes = Math.max(0, this.#options.capacityBytes - usedBytes);
    return {
      blockBytes,
      blocks: Math.floor(this.#options.capacityBytes / blockBytes),
      freeBlocks: Math.floor(freeBytes / blockBytes),
      files: this.#options.filesMax,
      freeFiles: Math.max(0, this.#options.filesMax - nodeCount),
      nameBytesMax,
    };
  }

  #make(
    parent: NodeId,
    name: string,
    mode: number,
    isExclusive: boolean,
    caller: Caller,
  ): FileNode | number {
    const directory = this.#placeForNew(parent, name, 'file');
    if (typeof directory === 'number') return directory;
    const { area } = directory;
    if (area === null) return failure.EPERM;
    const nameClass = this.#rules.ofNewFile(name, isExclusive);
    const isScratch = directory.isScratch || nameClass === 'scratch';
    const refusal = isScratch ? 0 : this.#tree.checkStoredName(directory, name, null);
    if (refusal < 0) return refusal;
    const gid = (directory.mode & modeBits.setGroupId) === 0 ? caller.gid : directory.gid;
    const file = new FileNode(
      this.#tree.nextId(),
      name,
      { mode, uid: caller.uid, gid },
      area,
      isScratch ? null : { area, path: directory.childPath(name) },
      this.#clock.wallUs(),
    );
    if (isScratch) file.scratch = new GrowingBytes(this.#budgets.scratch);
    this.#tree.add(directory, file);
    return file;
  }

  /** The directory, if something new may come into it. Nothing can be made beside the two areas. */
  #placeForNew(parent: NodeId, name: string, kind: Node['kind']): DirectoryNode | number {
    const directory = this.#tree.directory(parent);
    if (typeof directory === 'number') return directory;
    if (directory.area === null) return failure.EPERM;
    if (directory.linkCount === 0) return failure.ENOENT;
    if (Buffer.byteLength(name) > nameBytesMax) return failure.ENAMETOOLONG;
    if (directory.isBusy || directory.reservedNames.has(name)) return failure.EBUSY;
    const refusal = this.#tree.hasRoom(kind);
    return refusal < 0 ? refusal : directory;
  }

  #resize(file: FileNode, handleId: HandleId | undefined, sizeBytes: number): Result {
    if (handleId === undefined) return this.#openFiles.truncate(file, sizeBytes);
    const handle = this.#openFiles.handle(handleId);
    return handle === undefined ? failure.EIO : this.#openFiles.resize(handle, sizeBytes);
  }

  /** A file that the store has not heard of is put at its first save or RELEASE, with all its attributes. */
  #persistAttributes(node: Node): void {
    if (node.kind === 'directory') this.#requests.putDirectory(node);
    else if (node.isInStore) this.#requests.putFile(node, null);
  }
}

function referenced(node: Node): Attributes {
  node.lookupCount += 1;
  return node;
}
