import type { NodeId } from '../fuse/file-system.ts';
import type { StoreOutcome, StoreRequest } from '../store/store-request.ts';
import type { DirectoryNode, Node } from './node.ts';

/** What follows from the outcome: the tree changes with success, and stays as it was with failure. */
export interface ChangeEnds {
  readonly finish: () => void;
  readonly revert: () => void;
}

interface PendingChange extends ChangeEnds {
  readonly kind: StoreRequest['kind'];
}

/**
 * Changes of names on their way to the store, at most one for each node: a busy node takes no other. Bounded by the
 * requests that the kernel has in flight.
 */
export class PendingChanges {
  readonly #changes = new Map<NodeId, PendingChange>();

  /** Marks nodes and the wanted name as in flight until the outcome of this kind for `key`. */
  begin(
    kind: StoreRequest['kind'],
    key: Node,
    nodes: readonly Node[],
    reserved: readonly [DirectoryNode, string] | null,
    ends: ChangeEnds,
  ): void {
    for (const node of nodes) node.isBusy = true;
    reserved?.[0].reservedNames.add(reserved[1]);
    const settled = (end: () => void) => () => {
      for (const node of nodes) node.isBusy = false;
      reserved?.[0].reservedNames.delete(reserved[1]);
      end();
    };
    this.#changes.set(key.node, {
      kind,
      finish: settled(ends.finish),
      revert: settled(ends.revert),
    });
  }

  /** Ends the change that the outcome is about; false when it is about something else. */
  settle(outcome: StoreOutcome): boolean {
    if (this.#changes.size === 0) return false;
    const change = this.#changes.get(outcome.file);
    if (change?.kind !== outcome.kind || outcome.handle !== 0) return false;
    this.#changes.delete(outcome.file);
    if (outcome.result < 0) change.revert();
    else change.finish();
    return true;
  }
}
