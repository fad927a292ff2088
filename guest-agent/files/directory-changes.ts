import assert from 'node:assert';

import { deferred, type NodeId, type ReplyToken, type Result } from '../fuse/file-system.ts';
import type { FileSystemParts } from './file-requests.ts';
import { failure } from './linux.ts';
import type { NameRules } from './name-rules.ts';
import type { DirectoryNode, Node } from './node.ts';
import type { PendingChanges } from './pending-changes.ts';
import type { Tree } from './tree.ts';

/** rmdir, and rename of directories: only empty ones move, as each file below has rules of its own. */
export class DirectoryChanges {
  readonly #parts: FileSystemParts;
  readonly #tree: Tree;
  readonly #rules: NameRules;
  readonly #pending: PendingChanges;

  constructor(deps: {
    readonly parts: FileSystemParts;
    readonly tree: Tree;
    readonly rules: NameRules;
    /** Of all changes of names. */
    readonly pending: PendingChanges;
  }) {
    this.#parts = deps.parts;
    this.#tree = deps.tree;
    this.#rules = deps.rules;
    this.#pending = deps.pending;
  }

  /** Answered at once: an empty directory that comes back after a crash does no harm. */
  remove(parent: NodeId, name: string): Result {
    const node = this.#tree.changeable(parent, name);
    if (typeof node === 'number') return node;
    if (node.kind === 'file') return failure.ENOTDIR;
    if (node.children.size > 0 || node.reservedNames.size > 0) return failure.ENOTEMPTY;
    const { area } = node;
    this.#tree.remove(node);
    if (node.isScratch || area === null) return 0;
    const location = { area, path: node.path };
    this.#parts.store.submit({ kind: 'remove', token: null, file: node.node, location });
    return 0;
  }

  /** Renames an empty directory; the caller has looked whether both names may change now. */
  rename(
    node: DirectoryNode,
    parent: DirectoryNode,
    name: string,
    target: Node | null,
    token: ReplyToken,
  ): Result {
    const { area } = node;
    assert(area !== null, 'the root has no name');
    if (target?.kind === 'file') return failure.ENOTDIR;
    if (target !== null && target.children.size + target.reservedNames.size > 0) {
      return failure.ENOTEMPTY;
    }
    // mv then makes the directory anew and moves the files one by one, each under its own rules.
    const isMovable = node.children.size + node.reservedNames.size === 0;
    const toScratch = parent.isScratch || this.#rules.ofNewFile(name, false) === 'scratch';
    if (!isMovable || toScratch !== node.isScratch) return failure.EXDEV;
    const finish = () => {
      if (target !== null) this.#tree.remove(target);
      this.#tree.move(node, parent, name);
      node.path = parent.childPath(name);
    };
    if (node.isScratch) {
      finish();
      return 0;
    }
    const refusal = this.#tree.checkStoredName(parent, name, node);
    if (refusal < 0) return refusal;
    this.#pending.begin('rename', node, target === null ? [node] : [node, target], [parent, name], {
      finish,
      revert: () => {},
    });
    this.#parts.store.submit({
      kind: 'rename',
      token,
      file: node.node,
      from: { area, path: node.path },
      to: { area, path: parent.childPath(name) },
      replaced: target === null ? null : target.node,
      saves: false,
      savedAtUs: this.#parts.clock.wallUs(),
    });
    return deferred;
  }
}
