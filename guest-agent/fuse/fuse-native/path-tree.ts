import { errno } from '../errno.ts';
import type { Attributes, FileSystem, NodeId, Result } from '../file-system.ts';

const rootNode: NodeId = 1;

/** libfuse 2 renames a file that is unlinked while open to a name of this form, and unlinks that at its last close. */
const hiddenName = /^\.fuse_hidden[0-9a-f]+$/;

export interface Place {
  readonly parent: NodeId;
  readonly name: string;
}

/**
 * Finds nodes by path through lookup and forget: each visit gives back every reference it took. Files that libfuse has
 * "hidden" are unlinked in the file system at once and found here by their hidden path until libfuse lets go of them.
 */
export class PathTree {
  readonly #fileSystem: FileSystem;
  /** As many as libfuse has unlinked files open. */
  readonly #hidden = new Map<string, NodeId>();

  constructor(fileSystem: FileSystem) {
    this.#fileSystem = fileSystem;
  }

  /** Calls `visit` with the node at `path`, or returns the errno of what is in the way. */
  withNode<Found>(path: string, visit: (node: NodeId) => Found): Found | Result {
    const hidden = this.#hidden.get(path);
    if (hidden !== undefined) return visit(hidden);
    return this.#walk(namesOf(path), visit);
  }

  /** Calls `visit` with the directory of `path` and the last name. */
  withPlace<Found>(path: string, visit: (place: Place) => Found): Found | Result {
    const names = namesOf(path);
    const name = names.pop();
    if (name === undefined) return -errno.EINVAL;
    if (isReplaced(name)) return -errno.EILSEQ;
    return this.#walk(names, (parent) => visit({ parent, name }));
  }

  isHidden(path: string): boolean {
    return this.#hidden.has(path);
  }

  /** Whether a rename to `path` is libfuse's way of unlinking a file that is open. */
  hides(path: string): boolean {
    return hiddenName.test(path.slice(path.lastIndexOf('/') + 1));
  }

  /** Keeps the node at `place`, which is about to be unlinked, under its hidden path. */
  hide(place: Place, hiddenPath: string): Result {
    const found = this.#fileSystem.lookup(place.parent, place.name);
    if (typeof found === 'number') return found;
    this.#hidden.set(hiddenPath, found.node);
    return 0;
  }

  /** Lets go of a hidden file; false when `path` is none. */
  reveal(path: string): boolean {
    const node = this.#hidden.get(path);
    if (node === undefined) return false;
    this.#hidden.delete(path);
    this.#fileSystem.forget(node, 1);
    return true;
  }

  #walk<Found>(names: readonly string[], visit: (node: NodeId) => Found): Found | Result {
    const held: NodeId[] = [];
    try {
      let node = rootNode;
      for (const name of names) {
        const found: Attributes | Result = isReplaced(name)
          ? -errno.EILSEQ
          : this.#fileSystem.lookup(node, name);
        if (typeof found === 'number') return found;
        node = found.node;
        held.push(node);
      }
      return visit(node);
    } finally {
      for (const node of held) this.#fileSystem.forget(node, 1);
    }
  }
}

function namesOf(path: string): string[] {
  return path.split('/').filter((name) => name !== '');
}

/** N-API puts U+FFFD where a name is not UTF-8; a name that truly has it is refused alike. */
function isReplaced(name: string): boolean {
  return name.includes('\uFFFD');
}
