import type { Area } from '../../common/channel/area.ts';
import type { Attributes, NodeId } from '../fuse/file-system.ts';
import type { FileAttributes, FileLocation } from '../store/store-request.ts';
import type { GrowingBytes } from './growing-bytes.ts';
import { modeBits } from './linux.ts';

/** Who owns a new node and what it may do. */
export interface Ownership {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * What files and directories have in common. A node is its own Attributes and FileAttributes, so that answering and
 * saving need no copies: whoever gets it reads it before the next call.
 */
abstract class NodeBase implements Attributes, FileAttributes {
  readonly node: NodeId;
  name: string;
  /** null for the root, and once the node has no name any more. */
  parent: DirectoryNode | null = null;
  mode: number;
  linkCount: number;
  uid: number;
  gid: number;
  sizeBytes = 0;
  accessedAtUs: number;
  modifiedAtUs: number;
  changedAtUs: number;
  /** References that the kernel holds. */
  lookupCount = 0;
  /** A change of its name is on its way to the store; other changes of names get EBUSY. */
  isBusy = false;

  constructor(node: NodeId, name: string, ownership: Ownership, linkCount: number, nowUs: number) {
    this.node = node;
    this.name = name;
    this.mode = ownership.mode;
    this.uid = ownership.uid;
    this.gid = ownership.gid;
    this.linkCount = linkCount;
    this.accessedAtUs = nowUs;
    this.modifiedAtUs = nowUs;
    this.changedAtUs = nowUs;
  }
}

/**
 * A file. Its bytes are in `scratch`, or in the store.
 *
 *   made --(save, release)--> in the store --(unlink, replaced, renamed to a scratch name)--> in memory while needed
 *     \--(scratch name)--> in memory --(renamed to a KPI name)--> in the store
 */
export class FileNode extends NodeBase {
  readonly kind = 'file';
  readonly area: Area;
  /** Where the store has it once all submitted requests are done; null when it is not for the store (any more). */
  location: FileLocation | null;
  /** The bytes of a scratch file, or of a file that lost its name while open. */
  scratch: GrowingBytes | null = null;
  /** The store has heard of it. */
  isKnown = false;
  /** Saves and appends in flight. */
  pendingCount = 0;
  /** Rises with each truncation outside a save, so that an older save's outcome can't undo it. */
  truncationCount = 0;
  /** Rises with each save and append. */
  versionCount = 0;
  openCount = 0;

  constructor(
    node: NodeId,
    name: string,
    ownership: Ownership,
    area: Area,
    location: FileLocation | null,
    nowUs: number,
  ) {
    super(node, name, { ...ownership, mode: typed(ownership.mode, modeBits.regular) }, 1, nowUs);
    this.area = area;
    this.location = location;
  }

  /** The store has it, or will. */
  get isInStore(): boolean {
    return this.location !== null && (this.isKnown || this.pendingCount > 0);
  }
}

export class DirectoryNode extends NodeBase {
  readonly kind = 'directory';
  /** null for the root. */
  readonly area: Area | null;
  /** Below its area; '' for the area itself and the root. */
  path: string;
  /** A scratch directory: nothing in it is for the store. */
  readonly isScratch: boolean;
  readonly children = new Map<string, Node>();
  /** The children that are for the store, by their names as SQLite compares them. */
  readonly byFoldedName = new Map<string, Node>();
  /** Names that a rename on its way to the store will take. */
  readonly reservedNames = new Set<string>();

  constructor(
    node: NodeId,
    name: string,
    ownership: Ownership,
    place: { readonly area: Area | null; readonly path: string; readonly isScratch: boolean },
    nowUs: number,
  ) {
    super(node, name, { ...ownership, mode: typed(ownership.mode, modeBits.directory) }, 2, nowUs);
    this.area = place.area;
    this.path = place.path;
    this.isScratch = place.isScratch;
  }

  /** The path of an entry with this name. */
  childPath(name: string): string {
    return this.path === '' ? name : `${this.path}/${name}`;
  }
}

export type Node = FileNode | DirectoryNode;

function typed(mode: number, type: number): number {
  return type | (mode & modeBits.permissions);
}
