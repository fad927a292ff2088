import {
  type AttributeChange,
  type Attributes,
  type Caller,
  deferred,
  type DirectoryEntry,
  type FileSystem,
  type FileSystemStatistics,
  type HandleId,
  type NodeId,
  type Opened,
  type ReplyToken,
  type Result,
} from '../../guest-agent/fuse/file-system.ts';

const EIO = -5;
const ENOENT = -2;
const EEXIST = -17;
const ENOTDIR = -20;
const EISDIR = -21;
const EINVAL = -22;
const EFBIG = -27;
const ENOTEMPTY = -39;
const ESTALE = -116;

const typeMask = 0o170000;
const regular = 0o100000;
const directory = 0o040000;
const rootNode = 1;
const fileBytesMax = 64 << 20;
const noReplace = 1;
const exchange = 2;

interface MemoryNode {
  readonly node: NodeId;
  mode: number;
  uid: number;
  gid: number;
  accessedAtUs: number;
  modifiedAtUs: number;
  changedAtUs: number;
  /** The last save. */
  content: Uint8Array;
  readonly children: Map<string, MemoryNode> | null;
  linkCount: number;
  lookups: number;
  handles: number;
}

interface MemoryHandle {
  readonly node: MemoryNode;
  readonly appends: boolean;
  readonly writes: boolean;
  /** The handle's own content from its first change on; until then it sees the file's. */
  bytes: Uint8Array | null;
  sizeBytes: number;
  isDirty: boolean;
}

export interface MemoryFileSystemOptions {
  readonly nowUs: () => number;
  /** Where a dirty flush goes when it is to be answered later; the result given back is what to answer. */
  readonly defer?: (token: ReplyToken) => void;
  /** Names whose flush fails, and with what: a save that is not accepted. */
  readonly refusedNames?: ReadonlyMap<string, number>;
}

/**
 * A file system in memory that keeps the port's promises: content is buffered for each handle, a flush saves it, a
 * reader sees the last save and a writer its own buffer; a failed flush leaves the last save.
 */
export class MemoryFileSystem implements FileSystem {
  readonly #options: MemoryFileSystemOptions;
  readonly #nodes = new Map<NodeId, MemoryNode>();
  readonly #handles = new Map<HandleId, MemoryHandle>();
  #nextNode = rootNode;
  #nextHandle = 1;

  constructor(options: MemoryFileSystemOptions) {
    this.#options = options;
    this.#newNode(directory | 0o1777, { uid: 0, gid: 0, pid: 0 });
  }

  lookup(parent: NodeId, name: string): Attributes | Result {
    const found = this.#child(parent, name);
    if (typeof found === 'number') return found;
    found.lookups += 1;
    return attributesOf(found);
  }

  forget(node: NodeId, count: number): void {
    const known = this.#nodes.get(node);
    if (known === undefined) return;
    known.lookups = Math.max(0, known.lookups - count);
    this.#dropUnused(known);
  }

  getAttributes(node: NodeId, handle: HandleId | undefined): Attributes | Result {
    const known = this.#nodes.get(node);
    if (known === undefined) return ESTALE;
    const opened = handle === undefined ? undefined : this.#handles.get(handle);
    if (opened === undefined || opened.bytes === null) return attributesOf(known);
    return { ...attributesOf(known), sizeBytes: opened.sizeBytes };
  }

  setAttributes(
    node: NodeId,
    handle: HandleId | undefined,
    change: AttributeChange,
    _caller: Caller,
  ): Attributes | Result {
    const known = this.#nodes.get(node);
    if (known === undefined) return ESTALE;
    const nowUs = this.#options.nowUs();
    if (change.sizeBytes !== undefined) {
      if (change.sizeBytes > fileBytesMax) return EFBIG;
      const opened = handle === undefined ? undefined : this.#handles.get(handle);
      if (opened === undefined) known.content = resized(known.content, change.sizeBytes);
      else this.#resize(opened, change.sizeBytes);
      known.modifiedAtUs = nowUs;
    }
    if (change.mode !== undefined) known.mode = (known.mode & typeMask) | (change.mode & 0o7777);
    if (change.uid !== undefined) known.uid = change.uid;
    if (change.gid !== undefined) known.gid = change.gid;
    known.accessedAtUs = timeOf(change.accessedAtUs, nowUs) ?? known.accessedAtUs;
    known.modifiedAtUs = timeOf(change.modifiedAtUs, nowUs) ?? known.modifiedAtUs;
    known.changedAtUs = nowUs;
    return this.getAttributes(node, handle);
  }

  makeDirectory(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result {
    return this.#make(parent, name, directory | (mode & 0o7777), caller);
  }

  makeNode(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result {
    return this.#make(parent, name, regular | (mode & 0o7777), caller);
  }

  removeDirectory(parent: NodeId, name: string, _caller: Caller): Result {
    const found = this.#child(parent, name);
    if (typeof found === 'number') return found;
    if (found.children === null) return ENOTDIR;
    if (found.children.size > 0) return ENOTEMPTY;
    this.#unlinkNode(parent, name, found);
    return 0;
  }

  readDirectory(node: NodeId): readonly DirectoryEntry[] | Result {
    const known = this.#nodes.get(node);
    if (known === undefined) return ESTALE;
    if (known.children === null) return ENOTDIR;
    return [...known.children].map(([name, child]) => ({
      name,
      node: child.node,
      type: child.mode & typeMask,
    }));
  }

  create(
    parent: NodeId,
    name: string,
    mode: number,
    openFlags: number,
    caller: Caller,
  ): { readonly attributes: Attributes; readonly opened: Opened } | Result {
    const made = this.#make(parent, name, regular | (mode & 0o7777), caller);
    if (typeof made === 'number') return made;
    const opened = this.open(made.node, openFlags, caller);
    return typeof opened === 'number' ? opened : { attributes: made, opened };
  }

  open(node: NodeId, openFlags: number, _caller: Caller): Opened | Result {
    const known = this.#nodes.get(node);
    if (known === undefined) return ESTALE;
    if (known.children !== null) return EISDIR;
    const handle = this.#nextHandle;
    this.#nextHandle += 1;
    known.handles += 1;
    const truncates = (openFlags & 0o1000) !== 0;
    this.#handles.set(handle, {
      node: known,
      appends: (openFlags & 0o2000) !== 0,
      writes: (openFlags & 3) !== 0,
      bytes: truncates ? new Uint8Array(64) : null,
      sizeBytes: 0,
      isDirty: false,
    });
    return { handle, node };
  }

  read(_node: NodeId, handle: HandleId, offset: number, byteCount: number): Uint8Array | Result {
    const opened = this.#handles.get(handle);
    if (opened === undefined) return EIO;
    const bytes = opened.bytes?.subarray(0, opened.sizeBytes) ?? opened.node.content;
    return bytes.subarray(offset, offset + byteCount);
  }

  write(
    _node: NodeId,
    handle: HandleId,
    offset: number,
    data: Uint8Array,
    _caller: Caller,
    _token: ReplyToken,
  ): Result {
    const opened = this.#handles.get(handle);
    if (opened === undefined) return EIO;
    const bytes = this.#own(opened);
    const start = opened.appends ? opened.sizeBytes : offset;
    const end = start + data.length;
    if (end > fileBytesMax) return EFBIG;
    if (end > bytes.length) opened.bytes = resized(bytes, Math.max(end, bytes.length * 2));
    opened.bytes?.set(data, start);
    opened.sizeBytes = Math.max(opened.sizeBytes, end);
    opened.isDirty = true;
    // At the write, not at the save: `cp -p` sets its source's time in between.
    opened.node.modifiedAtUs = this.#options.nowUs();
    opened.node.changedAtUs = opened.node.modifiedAtUs;
    return data.length;
  }

  allocate(
    _node: NodeId,
    handle: HandleId,
    offset: number,
    byteCount: number,
    mode: number,
  ): Result {
    const opened = this.#handles.get(handle);
    if (opened === undefined) return EIO;
    const keepsSize = (mode & 1) !== 0;
    if (mode > 1) return -95;
    if (offset + byteCount > fileBytesMax) return EFBIG;
    if (!keepsSize && offset + byteCount > opened.sizeBytes) {
      this.#resize(opened, offset + byteCount);
    }
    return 0;
  }

  flush(_node: NodeId, handle: HandleId, _caller: Caller, token: ReplyToken): Result {
    const opened = this.#handles.get(handle);
    if (opened === undefined) return EIO;
    if (!opened.isDirty) return 0;
    const result = this.#save(opened);
    if (result === 0 && this.#options.defer !== undefined) {
      this.#options.defer(token);
      return deferred;
    }
    return result;
  }

  sync(node: NodeId, handle: HandleId, token: ReplyToken): Result {
    return this.flush(node, handle, { uid: 0, gid: 0, pid: 0 }, token);
  }

  release(_node: NodeId, handle: HandleId): void {
    const opened = this.#handles.get(handle);
    if (opened === undefined) return;
    if (opened.isDirty) this.#save(opened);
    this.#handles.delete(handle);
    opened.node.handles -= 1;
    this.#dropUnused(opened.node);
  }

  unlink(parent: NodeId, name: string, _caller: Caller, _token: ReplyToken): Result {
    const found = this.#child(parent, name);
    if (typeof found === 'number') return found;
    if (found.children !== null) return EISDIR;
    this.#unlinkNode(parent, name, found);
    return 0;
  }

  rename(
    parent: NodeId,
    name: string,
    newParent: NodeId,
    newName: string,
    flags: number,
    _caller: Caller,
    _token: ReplyToken,
  ): Result {
    const moved = this.#child(parent, name);
    if (typeof moved === 'number') return moved;
    const target = this.#child(newParent, newName);
    if (flags & exchange) return EINVAL;
    if (typeof target !== 'number') {
      if (flags & noReplace) return EEXIST;
      if (target === moved) return 0;
      if (target.children !== null && target.children.size > 0) return ENOTEMPTY;
      this.#unlinkNode(newParent, newName, target);
    } else if (target !== ENOENT) return target;
    this.#nodes.get(parent)?.children?.delete(name);
    this.#nodes.get(newParent)?.children?.set(newName, moved);
    return 0;
  }

  statistics(): FileSystemStatistics {
    return {
      blockBytes: 4096,
      blocks: 262_144,
      freeBlocks: 131_072,
      files: 100_000,
      freeFiles: 100_000 - this.#nodes.size,
      nameBytesMax: 255,
    };
  }

  settle(): void {}

  /** How many nodes are remembered: what FORGET and RELEASE leave behind is a leak. */
  get nodeCount(): number {
    return this.#nodes.size;
  }

  #save(opened: MemoryHandle): Result {
    const refused = this.#options.refusedNames?.get(this.#nameOf(opened.node) ?? '');
    opened.isDirty = false;
    if (refused !== undefined) return refused;
    opened.node.content = this.#own(opened).slice(0, opened.sizeBytes);
    return 0;
  }

  #nameOf(node: MemoryNode): string | undefined {
    if (this.#options.refusedNames === undefined) return undefined;
    for (const parent of this.#nodes.values()) {
      for (const [name, child] of parent.children ?? []) if (child === node) return name;
    }
    return undefined;
  }

  #own(opened: MemoryHandle): Uint8Array {
    if (opened.bytes === null) {
      opened.bytes = opened.node.content.slice();
      opened.sizeBytes = opened.bytes.length;
    }
    return opened.bytes;
  }

  #resize(opened: MemoryHandle, sizeBytes: number): void {
    const bytes = this.#own(opened).subarray(0, opened.sizeBytes);
    opened.bytes = resized(bytes, sizeBytes);
    opened.sizeBytes = sizeBytes;
    opened.isDirty = true;
  }

  #child(parent: NodeId, name: string): MemoryNode | Result {
    const known = this.#nodes.get(parent);
    if (known === undefined) return ESTALE;
    if (known.children === null) return ENOTDIR;
    return known.children.get(name) ?? ENOENT;
  }

  #make(parent: NodeId, name: string, mode: number, caller: Caller): Attributes | Result {
    const existing = this.#child(parent, name);
    if (typeof existing !== 'number') return EEXIST;
    if (existing !== ENOENT) return existing;
    const made = this.#newNode(mode, caller);
    made.lookups = 1;
    this.#nodes.get(parent)?.children?.set(name, made);
    return attributesOf(made);
  }

  #newNode(mode: number, caller: Caller): MemoryNode {
    const nowUs = this.#options.nowUs();
    const made: MemoryNode = {
      node: this.#nextNode,
      mode,
      uid: caller.uid,
      gid: caller.gid,
      accessedAtUs: nowUs,
      modifiedAtUs: nowUs,
      changedAtUs: nowUs,
      content: new Uint8Array(0),
      children: (mode & typeMask) === directory ? new Map() : null,
      linkCount: 1,
      lookups: 0,
      handles: 0,
    };
    this.#nextNode += 1;
    this.#nodes.set(made.node, made);
    return made;
  }

  #unlinkNode(parent: NodeId, name: string, node: MemoryNode): void {
    this.#nodes.get(parent)?.children?.delete(name);
    node.linkCount = 0;
    this.#dropUnused(node);
  }

  #dropUnused(node: MemoryNode): void {
    if (node.linkCount === 0 && node.lookups === 0 && node.handles === 0) {
      this.#nodes.delete(node.node);
    }
  }
}

function attributesOf(node: MemoryNode): Attributes {
  const { mode, linkCount, uid, gid, accessedAtUs, modifiedAtUs, changedAtUs } = node;
  const sizeBytes = node.content.length;
  return {
    node: node.node,
    mode,
    linkCount,
    uid,
    gid,
    sizeBytes,
    accessedAtUs,
    modifiedAtUs,
    changedAtUs,
  };
}

function resized(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const copy = new Uint8Array(sizeBytes);
  copy.set(bytes.subarray(0, sizeBytes));
  return copy;
}

function timeOf(change: number | 'now' | undefined, nowUs: number): number | undefined {
  return change === 'now' ? nowUs : change;
}
