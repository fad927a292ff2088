import assert from 'node:assert';

import { areas } from '../../common/channel/area.ts';
import type { NodeId } from '../fuse/file-system.ts';
import { type PersistentFile } from '../store/store-request.ts';
import { failure } from './linux.ts';
import { foldCase } from './name-rules.ts';
import { DirectoryNode, FileNode, type Node, type Ownership } from './node.ts';
import type { FileSystemOptions } from './options.ts';

const rootId: NodeId = 1;
/** The areas' nodes, in the order of `areas`: 2 and 3. */
const firstAreaId: NodeId = 2;

/**
 * The names and the nodes behind them. Node ids of stored files are the store's file ids, so they outlive the agent; ids
 * of new nodes start above everything a former process can have given out.
 */
export class Tree {
  readonly #options: FileSystemOptions;
  readonly #nodes = new Map<NodeId, Node>();
  #nextId: NodeId;
  #fileCount = 0;
  #directoryCount = 0;

  /** `nowUs` is the base for new ids: a process makes fewer nodes than it lives microseconds. */
  constructor(options: FileSystemOptions, nowUs: number) {
    this.#options = options;
    this.#nextId = nowUs;
    const root = new DirectoryNode(
      rootId,
      '',
      { mode: 0o755, uid: options.areaUserId, gid: options.areaGroupId },
      { area: null, path: '', isScratch: false },
      nowUs,
    );
    this.#nodes.set(rootId, root);
    for (const [index, area] of areas.entries()) {
      const directory = new DirectoryNode(
        firstAreaId + index,
        area,
        { mode: options.areaMode, uid: options.areaUserId, gid: options.areaGroupId },
        { area, path: '', isScratch: false },
        nowUs,
      );
      this.#nodes.set(directory.node, directory);
      this.#link(root, area, directory);
    }
  }

  get fileCount(): number {
    return this.#fileCount;
  }

  get directoryCount(): number {
    return this.#directoryCount;
  }

  node(id: NodeId): Node | undefined {
    return this.#nodes.get(id);
  }

  /** The entry, if its name may change now. */
  changeable(parent: NodeId, name: string): Node | number {
    const directory = this.directory(parent);
    if (typeof directory === 'number') return directory;
    if (directory.area === null) return failure.EPERM;
    const node = directory.children.get(name);
    if (node === undefined) return failure.ENOENT;
    return node.isBusy || directory.isBusy ? failure.EBUSY : node;
  }

  /** The directory, or ENOTDIR, or ESTALE for a node of a former process, on which the kernel looks the path up again. */
  directory(id: NodeId): DirectoryNode | number {
    const node = this.#nodes.get(id);
    if (node === undefined) return failure.ESTALE;
    return node.kind === 'directory' ? node : failure.ENOTDIR;
  }

  nextId(): NodeId {
    this.#nextId += 1;
    return this.#nextId;
  }

  /** 0 when one more node may be made. */
  hasRoom(kind: Node['kind']): number {
    const isFull =
      this.#fileCount + this.#directoryCount >= this.#options.filesMax ||
      (kind === 'directory' && this.#directoryCount >= this.#options.directoriesMax);
    return isFull ? failure.ENOSPC : 0;
  }

  /** 0 when a stored file or directory may be called so: the path is a table's name. `except` may have it already. */
  checkStoredName(parent: DirectoryNode, name: string, except: Node | null): number {
    const path = parent.childPath(name);
    if (Buffer.byteLength(path) > this.#options.pathBytesMax) return failure.ENAMETOOLONG;
    if (/^sqlite_/i.test(path)) return failure.EINVAL;
    const alike = parent.byFoldedName.get(foldCase(name));
    const isTaken = alike !== undefined && alike !== except && alike.name !== name;
    return isTaken ? failure.EEXIST : 0;
  }

  add(parent: DirectoryNode, node: Node): void {
    this.#nodes.set(node.node, node);
    if (node.kind === 'file') this.#fileCount += 1;
    else this.#directoryCount += 1;
    this.#link(parent, node.name, node);
  }

  /** Takes the node's name away; it stays while the kernel or a handle knows it. */
  remove(node: Node): void {
    this.#unlink(node);
    if (node.kind === 'file') this.#fileCount -= 1;
    else this.#directoryCount -= 1;
    node.linkCount = 0;
    this.dropIfUnused(node);
  }

  /** Gives the node another name; the name must be free. */
  move(node: Node, newParent: DirectoryNode, newName: string): void {
    this.#unlink(node);
    node.name = newName;
    this.#link(newParent, newName, node);
  }

  /** Lets go of a node without a name: its bytes with the last handle, the node with the kernel's last reference. */
  dropIfUnused(node: Node): void {
    if (node.parent !== null || node.node === rootId) return;
    if (node.kind === 'file') {
      if (node.openCount > 0) return;
      node.scratch?.clear();
    }
    if (node.lookupCount === 0) this.#nodes.delete(node.node);
  }

  /** Builds what the store knows. Directories that it does not list are made with the areas' rights. */
  restore(persistent: readonly PersistentFile[], nowUs: number): void {
    const byPath = persistent.toSorted((left, right) =>
      left.location.path < right.location.path ? -1 : 1,
    );
    for (const entry of byPath) {
      assert(entry.file > firstAreaId + 1, `not a file's id: ${entry.file}`);
      this.#nextId = Math.max(this.#nextId, entry.file);
    }
    for (const entry of byPath) this.#restoreOne(entry, nowUs);
  }

  #restoreOne(entry: PersistentFile, nowUs: number): void {
    const { area, path } = entry.location;
    const names = path.split('/');
    const name = names.pop() ?? '';
    let parent = this.#areaDirectory(area);
    for (const directoryName of names) parent = this.#restoreParent(parent, directoryName, nowUs);
    const { mode, uid, gid } = entry.attributes;
    const node = entry.isDirectory
      ? new DirectoryNode(
          entry.file,
          name,
          { mode, uid, gid },
          { area, path, isScratch: false },
          nowUs,
        )
      : new FileNode(entry.file, name, { mode, uid, gid }, area, entry.location, nowUs);
    node.accessedAtUs = entry.attributes.accessedAtUs;
    node.modifiedAtUs = entry.attributes.modifiedAtUs;
    node.changedAtUs = entry.attributes.modifiedAtUs;
    if (node.kind === 'file') {
      node.sizeBytes = entry.sizeBytes;
      node.isKnown = true;
    }
    this.add(parent, node);
  }

  #restoreParent(parent: DirectoryNode, name: string, nowUs: number): DirectoryNode {
    const existing = parent.children.get(name);
    if (existing !== undefined) {
      assert(existing.kind === 'directory', `a file is the parent of ${parent.childPath(name)}/`);
      return existing;
    }
    const ownership: Ownership = parent;
    const made = new DirectoryNode(
      this.nextId(),
      name,
      ownership,
      { area: parent.area, path: parent.childPath(name), isScratch: false },
      nowUs,
    );
    this.add(parent, made);
    return made;
  }

  #areaDirectory(area: (typeof areas)[number]): DirectoryNode {
    const directory = this.#nodes.get(firstAreaId + areas.indexOf(area));
    assert(directory?.kind === 'directory');
    return directory;
  }

  #link(parent: DirectoryNode, name: string, node: Node): void {
    assert(!parent.children.has(name), `two entries for ${parent.childPath(name)}`);
    parent.children.set(name, node);
    if (isStored(node)) parent.byFoldedName.set(foldCase(name), node);
    node.parent = parent;
    if (node.kind === 'directory') parent.linkCount += 1;
  }

  #unlink(node: Node): void {
    const { parent } = node;
    assert(parent !== null, 'the node has no name');
    parent.children.delete(node.name);
    const folded = foldCase(node.name);
    if (parent.byFoldedName.get(folded) === node) parent.byFoldedName.delete(folded);
    node.parent = null;
    if (node.kind === 'directory') parent.linkCount -= 1;
  }
}

function isStored(node: Node): boolean {
  return node.kind === 'file' ? node.scratch === null : !node.isScratch;
}
