import assert from 'node:assert';

import type { NodeId, ReplyToken, Result } from '../fuse/file-system.ts';
import { deferred } from '../fuse/file-system.ts';
import type { FileLocation, StoreOutcome, StoreRequest } from '../store/store-request.ts';
import { DirectoryChanges } from './directory-changes.ts';
import type { FileRequests, FileSystemParts } from './file-requests.ts';
import { type ByteBudget, GrowingBytes, isBlank } from './growing-bytes.ts';
import { failure, renameBits } from './linux.ts';
import type { NameRules } from './name-rules.ts';
import type { DirectoryNode, FileNode } from './node.ts';
import type { OpenFiles } from './open-files.ts';
import { type ChangeEnds, PendingChanges } from './pending-changes.ts';
import type { Tree } from './tree.ts';

/** One file's way from a name to another. */
interface Move {
  readonly file: FileNode;
  readonly directory: DirectoryNode;
  readonly name: string;
  readonly target: FileNode | null;
  readonly token: ReplyToken;
}

/**
 * unlink, rmdir and rename. The kernel holds the directories' locks until it has the reply; what reaches a name in
 * flight all the same gets EBUSY.
 *
 *   scratch -> scratch   at once, in memory          KPI -> KPI        rename request that saves
 *   scratch -> KPI       save under the new name     KPI -> rotation   rename request that does not
 *   KPI -> scratch       leaves the store: remove request
 */
export class NameChanges {
  readonly #parts: FileSystemParts;
  readonly #requests: FileRequests;
  readonly #tree: Tree;
  readonly #openFiles: OpenFiles;
  readonly #rules: NameRules;
  readonly #scratch: ByteBudget;
  readonly #buffers: ByteBudget;
  readonly #fileBytesMax: number;
  readonly #pending = new PendingChanges();
  readonly #directories: DirectoryChanges;

  constructor(deps: {
    readonly parts: FileSystemParts;
    readonly requests: FileRequests;
    readonly tree: Tree;
    readonly openFiles: OpenFiles;
    readonly rules: NameRules;
    readonly scratch: ByteBudget;
    readonly buffers: ByteBudget;
    readonly fileBytesMax: number;
  }) {
    this.#parts = deps.parts;
    this.#requests = deps.requests;
    this.#tree = deps.tree;
    this.#openFiles = deps.openFiles;
    this.#rules = deps.rules;
    this.#scratch = deps.scratch;
    this.#buffers = deps.buffers;
    this.#fileBytesMax = deps.fileBytesMax;
    const { parts, tree, rules } = deps;
    this.#directories = new DirectoryChanges({ parts, tree, rules, pending: this.#pending });
  }

  unlink(parent: NodeId, name: string, token: ReplyToken): Result {
    const node = this.#tree.changeable(parent, name);
    if (typeof node === 'number') return node;
    if (node.kind === 'directory') return failure.EISDIR;
    if (!node.isInStore) {
      this.#end(node);
      return 0;
    }
    return this.#retire(node, token, null, {
      finish: () => {
        this.#end(node);
      },
      revert: () => {},
    });
  }

  removeDirectory(parent: NodeId, name: string): Result {
    return this.#directories.remove(parent, name);
  }

  rename(
    parent: NodeId,
    name: string,
    newParent: NodeId,
    newName: string,
    flags: number,
    token: ReplyToken,
  ): Result {
    if ((flags & ~renameBits.noReplace) !== 0) return failure.EINVAL;
    const node = this.#tree.changeable(parent, name);
    if (typeof node === 'number') return node;
    const directory = this.#tree.directory(newParent);
    if (typeof directory === 'number') return directory;
    if (directory.area === null) return failure.EPERM;
    if (directory.area !== node.area) return failure.EXDEV;
    const target = directory.children.get(newName) ?? null;
    if (target === node) return 0;
    if (target !== null && (flags & renameBits.noReplace) !== 0) return failure.EEXIST;
    const isBusy = target?.isBusy === true || directory.isBusy;
    if (isBusy || directory.reservedNames.has(newName)) return failure.EBUSY;
    if (node.kind === 'directory') {
      return this.#directories.rename(node, directory, newName, target, token);
    }
    if (target?.kind === 'directory') return failure.EISDIR;
    return this.#renameFile({ file: node, directory, name: newName, target, token });
  }

  /** Takes in the outcome of a change asked for here; false when it is about something else. */
  settle(outcome: StoreOutcome): boolean {
    return this.#pending.settle(outcome);
  }

  #renameFile(move: Move): Result {
    const { file, directory, name, target } = move;
    const nameClass = directory.isScratch ? 'scratch' : this.#rules.ofRenameTarget(name);
    const fromMemory = file.scratch !== null;
    if (nameClass === 'kpi' || !fromMemory) {
      const refusal =
        nameClass === 'scratch' ? 0 : this.#tree.checkStoredName(directory, name, file);
      if (refusal < 0) return refusal;
    }
    if (fromMemory && nameClass === 'kpi') return this.#adopt(move);
    if (fromMemory) return this.#afterTarget(move, () => this.#place(move));
    if (nameClass === 'scratch') return this.#takeOut(move);
    const { area } = file;
    const to = { area, path: directory.childPath(name) };
    if (!file.isInStore || file.location === null) {
      return this.#afterTarget(move, () => {
        file.location = to;
        this.#relocateHandles(file, to);
        this.#place(move);
      });
    }
    return this.#renameStored(move, file.location, to, nameClass === 'kpi', target);
  }

  #renameStored(
    move: Move,
    from: FileLocation,
    to: FileLocation,
    isKpi: boolean,
    target: FileNode | null,
  ): Result {
    const { file, token } = move;
    const replaced = target?.isInStore === true ? target.node : null;
    const restoreTarget = this.#leaveStore(target);
    const hasSave =
      file.pendingCount > 0 ||
      !isBlank(this.#parts.contents.of(file)) ||
      [...this.#openFiles.handlesOf(file)].some((handle) => handle.isUnpublished);
    // From here on saves of the file follow the rename in the queue, so they name the new place.
    const relocated = isKpi ? this.#relocateHandles(file, to) : [];
    file.location = to;
    this.#beginMove('rename', move, {
      finish: () => {
        this.#place(move);
      },
      revert: () => {
        file.location = from;
        for (const [handle, location] of relocated) handle.location = location;
        restoreTarget();
      },
    });
    this.#parts.store.submit({
      kind: 'rename',
      token,
      file: file.node,
      from,
      to,
      replaced,
      saves: isKpi && hasSave,
      savedAtUs: this.#parts.clock.wallUs(),
    });
    return deferred;
  }

  /** A scratch file gets a KPI name: its content is a save. */
  #adopt(move: Move): Result {
    const { file, directory, name, target, token } = move;
    const { scratch, area } = file;
    assert(scratch !== null);
    const to = { area, path: directory.childPath(name) };
    if (scratch.length > this.#fileBytesMax) return this.#refuse(failure.EFBIG);
    const content = scratch.share();
    const changeCounts = new Map(
      [...this.#openFiles.handlesOf(file)].map((handle) => [handle, handle.changeCount]),
    );
    const changedAtUs = file.changedAtUs;
    const enterStore = () => {
      const isPut = file.isKnown && file.changedAtUs === changedAtUs;
      this.#openAsStored(file, to, content.length, changeCounts);
      file.scratch = null;
      scratch.clear();
      this.#place(move);
      file.location = to;
      this.#parts.contents.replace(file, content);
      if (!isPut) this.#requests.putFileLater(file, file.isKnown ? null : content.length);
    };
    if (isBlank(content)) return this.#afterTarget(move, enterStore);
    const replaced = target?.isInStore === true ? target.node : null;
    const restoreTarget = this.#leaveStore(target);
    this.#parts.counters.accepted += 1;
    this.#beginMove('save', move, {
      finish: () => {
        this.#parts.counters.forwarded += 1;
        file.isKnown = true;
        enterStore();
      },
      revert: () => {
        this.#parts.counters.failed += 1;
        restoreTarget();
      },
    });
    this.#parts.store.submit({
      kind: 'save',
      token,
      handle: 0,
      file: file.node,
      location: to,
      filePath: to.path,
      replaced,
      attributes: file,
      content,
      savedAtUs: this.#parts.clock.wallUs(),
      holdsNewName: false,
      publishes: true,
    });
    return deferred;
  }

  /** Open handles of a scratch file that became a KPI: what they wrote since is theirs, and not yet saved. */
  #openAsStored(
    file: FileNode,
    to: FileLocation,
    savedBytes: number,
    changeCounts: ReadonlyMap<unknown, number>,
  ): void {
    for (const handle of this.#openFiles.handlesOf(file)) {
      const isScratchHandle = handle.location === null;
      handle.location = to;
      if (!isScratchHandle || file.scratch === null) continue;
      handle.isChanged = changeCounts.get(handle) !== handle.changeCount;
      if (!handle.isChanged) continue;
      const written = file.scratch.view().subarray(handle.isAppend ? savedBytes : 0);
      if (handle.ownBytes(this.#buffers).write(0, written)) continue;
      handle.isChanged = false;
      this.#parts.counters.dropAtOnce();
    }
  }

  /** A stored file gets a scratch name: it leaves the store, and its bytes live in memory. */
  #takeOut(move: Move): Result {
    const { file } = move;
    const scratch = new GrowingBytes(this.#scratch);
    if (!scratch.write(0, this.#parts.contents.of(file))) return this.#refuse(failure.ENOSPC);
    if (move.target?.isInStore === true) {
      scratch.clear();
      return failure.EBUSY;
    }
    if (!file.isInStore) {
      file.scratch = scratch;
      file.location = null;
      this.#place(move);
      return 0;
    }
    const result = this.#retire(file, move.token, move, {
      finish: () => {
        file.isKnown = false;
        this.#place(move);
      },
      revert: () => {},
    });
    file.scratch?.clear();
    file.scratch = scratch;
    return result;
  }

  /** Runs `act` when nothing of the store is in the way of the new name: at once, or once the target's removal succeeded. */
  #afterTarget(move: Move, act: () => void): Result {
    const { target, token } = move;
    if (target?.isInStore !== true) {
      act();
      this.#requests.submitPostponed();
      return 0;
    }
    return this.#retire(target, token, move, { finish: act, revert: () => {} });
  }

  /** Asks the store to remove the file, which then ends as `finish` says; for the move that it makes room for, if any. */
  #retire(file: FileNode, token: ReplyToken, move: Move | null, ends: ChangeEnds): Result {
    const { location } = file;
    assert(location !== null, 'only stored files leave the store');
    const restore = this.#leaveStore(file);
    const nodes =
      move === null ? [file] : [move.file, ...(move.target === null ? [] : [move.target])];
    this.#pending.begin('remove', file, nodes, move === null ? null : [move.directory, move.name], {
      finish: ends.finish,
      revert: () => {
        restore();
        ends.revert();
      },
    });
    this.#parts.store.submit({ kind: 'remove', token, file: file.node, location });
    return deferred;
  }

  /** The file's name ends, or it becomes scratch; what its open handles read moves to memory. Returns the way back. */
  #leaveStore(file: FileNode | null): () => void {
    if (file === null || file.scratch !== null) return () => {};
    const { location } = file;
    if (file.openCount > 0) {
      const scratch = new GrowingBytes(this.#scratch);
      // Without room its readers see its end: a full scratch must not keep a name alive.
      scratch.write(0, this.#parts.contents.of(file));
      file.scratch = scratch;
    }
    file.location = null;
    return () => {
      file.scratch?.clear();
      file.scratch = null;
      file.location = location;
    };
  }

  /** Puts the file under its new name; what had it ends. */
  #place(move: Move): void {
    const { file, directory, name, target } = move;
    if (target !== null) this.#end(target);
    this.#tree.move(file, directory, name);
    file.changedAtUs = this.#parts.clock.wallUs();
    if (file.scratch !== null) this.#parts.contents.forget(file);
  }

  #end(file: FileNode): void {
    this.#leaveStore(file);
    this.#parts.contents.forget(file);
    this.#tree.remove(file);
  }

  /** Saves of the file's handles go to its new name; returns where they went before. */
  #relocateHandles(file: FileNode, to: FileLocation) {
    const previous = [...this.#openFiles.handlesOf(file)]
      .filter((handle) => handle.location !== null)
      .map((handle) => [handle, handle.location] as const);
    for (const [handle] of previous) handle.location = to;
    return previous;
  }

  #beginMove(kind: StoreRequest['kind'], move: Move, ends: ChangeEnds): void {
    const nodes = move.target === null ? [move.file] : [move.file, move.target];
    this.#pending.begin(kind, move.file, nodes, [move.directory, move.name], ends);
  }

  #refuse(result: Result): Result {
    this.#parts.counters.dropAtOnce();
    return result;
  }
}
