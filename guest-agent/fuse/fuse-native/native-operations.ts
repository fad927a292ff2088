import type { ReplySink } from '../../store/store-request.ts';
import { errno } from '../errno.ts';
import {
  type AttributeChange,
  type Attributes,
  type Caller,
  deferred,
  type FileSystem,
  type HandleId,
  type NodeId,
  type ReplyToken,
  type Result,
} from '../file-system.ts';
import { fileType } from '../open-flags.ts';
import type { Callback, NativeOperations, NativeStat, NativeStatfs } from './fuse-native-module.ts';
import { PathTree } from './path-tree.ts';

interface OpenFile {
  readonly node: NodeId;
  readonly handle: HandleId;
}

const microsecondsPerMillisecond = 1_000;
const statBlockBytes = 512;
const preferredTransferBytes = 4096;
/** fuse-native passes descriptors as 32 bits, and takes 0 for none. */
const descriptorMax = 0x7fff_ffff;

/**
 * fuse-native's callbacks by path, on top of the FileSystem port by node and handle. CREATE is left out, so that the
 * kernel uses MKNOD and OPEN, whose flags arrive (fuse-native's `create` drops them).
 */
export class FuseNativeOperations implements NativeOperations, ReplySink {
  readonly #fileSystem: FileSystem;
  readonly #caller: Caller;
  readonly #tree: PathTree;
  readonly #files = new Map<number, OpenFile>();
  /** Requests that the store thread will answer; the kernel bounds how many it has under way. */
  readonly #waiting = new Map<ReplyToken, Callback>();
  #lastDescriptor = 0;
  #lastToken = 0n;

  /** `caller`: fuse-native tells nobody who calls, so everything is done as this user. */
  constructor(fileSystem: FileSystem, caller: Caller) {
    this.#fileSystem = fileSystem;
    this.#caller = caller;
    this.#tree = new PathTree(fileSystem);
  }

  /** Files that are open. */
  get openCount(): number {
    return this.#files.size;
  }

  reply(token: ReplyToken, result: number, writtenBytes: number | null): void {
    // The outcome came before the reply: the file system takes it in before the caller can act on the reply.
    this.#fileSystem.settle();
    const done = this.#waiting.get(token);
    this.#waiting.delete(token);
    done?.(result === 0 ? (writtenBytes ?? 0) : result);
  }

  getattr(path: string, done: Callback<NativeStat>): void {
    this.#fileSystem.settle();
    const found = this.#tree.withNode(path, (node) =>
      this.#fileSystem.getAttributes(node, undefined),
    );
    if (typeof found === 'number') done(found);
    else done(0, statOf(found));
  }

  statfs(_path: string, done: Callback<NativeStatfs>): void {
    const { blockBytes, blocks, freeBlocks, files, freeFiles, nameBytesMax } =
      this.#fileSystem.statistics();
    done(0, {
      bsize: blockBytes,
      frsize: blockBytes,
      blocks,
      bfree: freeBlocks,
      bavail: freeBlocks,
      files,
      ffree: freeFiles,
      favail: freeFiles,
      namemax: nameBytesMax,
    });
  }

  readdir(path: string, done: Callback<readonly string[]>): void {
    this.#fileSystem.settle();
    const entries = this.#tree.withNode(path, (node) => this.#fileSystem.readDirectory(node));
    if (typeof entries === 'number') done(entries);
    else done(0, ['.', '..', ...entries.map((entry) => entry.name)]);
  }

  truncate(path: string, size: number, done: Callback): void {
    this.#change(path, undefined, { sizeBytes: size }, done);
  }

  ftruncate(path: string, fd: number, size: number, done: Callback): void {
    this.#change(path, this.#files.get(fd)?.handle, { sizeBytes: size }, done);
  }

  chown(path: string, uid: number, gid: number, done: Callback): void {
    // (uid_t) -1: leave as it is (chown(2)).
    const unchanged = 0xffff_ffff;
    const change = { ...(uid === unchanged ? {} : { uid }), ...(gid === unchanged ? {} : { gid }) };
    this.#change(path, undefined, change, done);
  }

  chmod(path: string, mode: number, done: Callback): void {
    this.#change(path, undefined, { mode }, done);
  }

  utimens(path: string, accessMs: number, modifiedMs: number, done: Callback): void {
    const change = {
      accessedAtUs: accessMs * microsecondsPerMillisecond,
      modifiedAtUs: modifiedMs * microsecondsPerMillisecond,
    };
    this.#change(path, undefined, change, done);
  }

  mknod(path: string, mode: number, _device: number, done: Callback): void {
    if ((mode & fileType.mask) !== fileType.regular) return done(-errno.EPERM);
    return this.#make(path, done, (parent, name) =>
      this.#fileSystem.makeNode(parent, name, mode, this.#caller),
    );
  }

  mkdir(path: string, mode: number, done: Callback): void {
    this.#make(path, done, (parent, name) =>
      this.#fileSystem.makeDirectory(parent, name, mode, this.#caller),
    );
  }

  rmdir(path: string, done: Callback): void {
    this.#fileSystem.settle();
    done(
      this.#tree.withPlace(path, ({ parent, name }) =>
        this.#fileSystem.removeDirectory(parent, name, this.#caller),
      ),
    );
  }

  unlink(path: string, done: Callback): void {
    if (this.#tree.reveal(path)) return done(0);
    return this.#unlessDeferred(done, (token) =>
      this.#tree.withPlace(path, ({ parent, name }) =>
        this.#fileSystem.unlink(parent, name, this.#caller, token),
      ),
    );
  }

  rename(from: string, to: string, done: Callback): void {
    if (this.#tree.hides(to)) return this.#hide(from, to, done);
    return this.#unlessDeferred(done, (token) =>
      this.#tree.withPlace(from, (old) =>
        this.#tree.withPlace(to, (place) =>
          this.#fileSystem.rename(
            old.parent,
            old.name,
            place.parent,
            place.name,
            0,
            this.#caller,
            token,
          ),
        ),
      ),
    );
  }

  link(_from: string, _to: string, done: Callback): void {
    done(-errno.EPERM);
  }

  symlink(_from: string, _to: string, done: Callback): void {
    done(-errno.EPERM);
  }

  open(path: string, flags: number, done: Callback<number>): void {
    this.#fileSystem.settle();
    const opened = this.#tree.withNode(path, (node) =>
      this.#fileSystem.open(node, flags, this.#caller),
    );
    if (typeof opened === 'number') return done(opened);
    return done(0, this.#remember({ node: opened.node, handle: opened.handle }));
  }

  read(
    _path: string,
    fd: number,
    into: Buffer,
    length: number,
    position: number,
    done: Callback,
  ): void {
    this.#fileSystem.settle();
    const file = this.#files.get(fd);
    if (file === undefined) return done(-errno.EBADF);
    const data = this.#fileSystem.read(file.node, file.handle, position, length);
    if (typeof data === 'number') return done(data);
    into.set(data.length > length ? data.subarray(0, length) : data);
    return done(Math.min(data.length, length));
  }

  write(
    _path: string,
    fd: number,
    from: Buffer,
    length: number,
    position: number,
    done: Callback,
  ): void {
    const file = this.#files.get(fd);
    if (file === undefined) return done(-errno.EBADF);
    const data = from.subarray(0, length);
    return this.#unlessDeferred(done, (token) =>
      this.#fileSystem.write(file.node, file.handle, position, data, this.#caller, token),
    );
  }

  flush(_path: string, fd: number, done: Callback): void {
    const file = this.#files.get(fd);
    if (file === undefined) return done(-errno.EBADF);
    return this.#unlessDeferred(done, (token) =>
      this.#fileSystem.flush(file.node, file.handle, this.#caller, token),
    );
  }

  fsync(_path: string, _dataOnly: boolean, fd: number, done: Callback): void {
    const file = this.#files.get(fd);
    if (file === undefined) return done(-errno.EBADF);
    return this.#unlessDeferred(done, (token) =>
      this.#fileSystem.sync(file.node, file.handle, token),
    );
  }

  fsyncdir(_path: string, _dataOnly: boolean, _fd: number, done: Callback): void {
    done(0);
  }

  release(_path: string, fd: number, done: Callback): void {
    this.#fileSystem.settle();
    const file = this.#files.get(fd);
    if (file !== undefined) {
      this.#files.delete(fd);
      this.#fileSystem.release(file.node, file.handle);
    }
    done(0);
  }

  /** Unlinks a file that is open, in libfuse's manner. */
  #hide(from: string, to: string, done: Callback): void {
    this.#unlessDeferred(done, (token) =>
      this.#tree.withPlace(from, (place) => {
        const hidden = this.#tree.hide(place, to);
        if (hidden < 0) return hidden;
        return this.#fileSystem.unlink(place.parent, place.name, this.#caller, token);
      }),
    );
  }

  #change(
    path: string,
    handle: HandleId | undefined,
    change: AttributeChange,
    done: Callback,
  ): void {
    this.#fileSystem.settle();
    const found = this.#tree.withNode(path, (node) =>
      this.#fileSystem.setAttributes(node, handle, change, this.#caller),
    );
    done(typeof found === 'number' ? found : 0);
  }

  #make(
    path: string,
    done: Callback,
    make: (parent: NodeId, name: string) => Attributes | Result,
  ): void {
    this.#fileSystem.settle();
    const made = this.#tree.withPlace(path, ({ parent, name }) => make(parent, name));
    if (typeof made === 'number') return done(made);
    this.#fileSystem.forget(made.node, 1);
    return done(0);
  }

  #unlessDeferred(done: Callback, operate: (token: ReplyToken) => Result): void {
    this.#fileSystem.settle();
    this.#lastToken += 1n;
    const token = this.#lastToken;
    // Before the call: the store thread may be done before it returns.
    this.#waiting.set(token, done);
    const result = operate(token);
    if (result === deferred) return;
    this.#waiting.delete(token);
    done(result);
  }

  #remember(file: OpenFile): number {
    do {
      this.#lastDescriptor = this.#lastDescriptor >= descriptorMax ? 1 : this.#lastDescriptor + 1;
    } while (this.#files.has(this.#lastDescriptor));
    this.#files.set(this.#lastDescriptor, file);
    return this.#lastDescriptor;
  }
}

function statOf(attributes: Attributes): NativeStat {
  return {
    mode: attributes.mode,
    uid: attributes.uid,
    gid: attributes.gid,
    size: attributes.sizeBytes,
    nlink: attributes.linkCount,
    ino: attributes.node,
    blksize: preferredTransferBytes,
    blocks: Math.ceil(attributes.sizeBytes / statBlockBytes),
    atime: new Date(attributes.accessedAtUs / microsecondsPerMillisecond),
    mtime: new Date(attributes.modifiedAtUs / microsecondsPerMillisecond),
    ctime: new Date(attributes.changedAtUs / microsecondsPerMillisecond),
  };
}
