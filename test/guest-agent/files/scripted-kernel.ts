import assert from 'node:assert';

import { KpiFileSystem } from '../../../guest-agent/files/kpi-file-system.ts';
import {
  defaultFileSystemOptions,
  type FileSystemOptions,
} from '../../../guest-agent/files/options.ts';
import {
  type Attributes,
  type Caller,
  deferred,
  type HandleId,
  type NodeId,
  type ReplyToken,
  type Result,
} from '../../../guest-agent/fuse/file-system.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryStore } from '../../support/memory-store.ts';

/** An open file description, as dup and fork share it. */
export interface Description {
  readonly node: NodeId;
  readonly handle: HandleId;
  offset: number;
  descriptorCount: number;
}

/** A request that waits for the store. */
export interface Waiting {
  /** The reply once the store has committed; throws before. */
  result(): number;
}

const flagsByMode: Readonly<Record<string, number>> = {
  r: 0,
  'r+': 2,
  w: 0o1 | 0o100 | 0o1000,
  'w+': 0o2 | 0o100 | 0o1000,
  wx: 0o1 | 0o100 | 0o200 | 0o1000,
  a: 0o1 | 0o100 | 0o2000,
  'a+': 0o2 | 0o100 | 0o2000,
  at: 0o1 | 0o100 | 0o1000 | 0o2000,
  c: 0o1 | 0o100,
};

const user: Caller = { uid: 1000, gid: 1000, pid: 42 };

/** Does what the kernel does for processes: paths to nodes, descriptors to handles, one FLUSH a close, RELEASE at the last. */
export class ScriptedKernel {
  readonly store = new MemoryStore();
  readonly clock = new ManualClock();
  readonly options: FileSystemOptions;
  /** What the database has, for statfs(2). */
  storedBytes = 0;
  fileSystem: KpiFileSystem;
  #lastToken = 0n;

  constructor(options: Partial<FileSystemOptions> = {}) {
    this.options = { ...defaultFileSystemOptions, ...options };
    this.fileSystem = this.#restore();
  }

  /** Kills the file system with what it had not committed, and starts another. */
  restart(): void {
    this.store.lose();
    this.clock.stepWall(1_000_000);
    this.fileSystem = this.#restore();
  }

  /** Sends one request, lets the store commit, and returns the reply. */
  call(request: (token: ReplyToken) => Result): number {
    const waiting = this.begin(request);
    this.store.commit();
    this.fileSystem.settle();
    return waiting.result();
  }

  /** Sends one request; the store commits when the test says so. */
  begin(request: (token: ReplyToken) => Result): Waiting {
    this.fileSystem.settle();
    this.clock.stepWall(1);
    this.#lastToken += 1n;
    const token = this.#lastToken;
    const result = request(token);
    return {
      result: () => {
        if (result !== deferred) return result;
        const reply = this.store.reply(token);
        assert(reply !== undefined, 'the store has not answered');
        return reply.result < 0 ? reply.result : (reply.writtenBytes ?? 0);
      },
    };
  }

  commit(): void {
    this.store.commit();
    this.fileSystem.settle();
  }

  node(path: string): NodeId {
    const attributes = this.stat(path);
    assert(typeof attributes !== 'number', `${path} is not there`);
    return attributes.node;
  }

  stat(path: string): Attributes | Result {
    this.fileSystem.settle();
    let attributes: Attributes | Result = this.fileSystem.getAttributes(1, undefined);
    for (const name of path.split('/')) {
      if (typeof attributes === 'number') return attributes;
      attributes = this.fileSystem.lookup(attributes.node, name);
      if (typeof attributes !== 'number') this.fileSystem.forget(attributes.node, 1);
    }
    return attributes;
  }

  sizeBytes(path: string): number {
    const attributes = this.stat(path);
    return typeof attributes === 'number' ? attributes : attributes.sizeBytes;
  }

  tryOpen(path: string, mode: string, caller: Caller = user): Description | number {
    const flags = flagsByMode[mode];
    assert(flags !== undefined);
    const existing = this.stat(path);
    if (typeof existing !== 'number' && (flags & 0o200) === 0) {
      const opened = this.fileSystem.open(existing.node, flags, caller);
      if (typeof opened === 'number') return opened;
      return { ...opened, offset: 0, descriptorCount: 1 };
    }
    if ((flags & 0o100) === 0) return Number(existing);
    const [parent, name] = this.#split(path);
    const made = this.fileSystem.create(parent, name, 0o100644, flags, caller);
    if (typeof made === 'number') return made;
    this.fileSystem.forget(made.attributes.node, 1);
    return { ...made.opened, offset: 0, descriptorCount: 1 };
  }

  open(path: string, mode: string): Description {
    const description = this.tryOpen(path, mode);
    assert(typeof description !== 'number', `${path} can't be opened`);
    return description;
  }

  write(file: Description, text: string): number {
    const result = this.pwrite(file, file.offset, text);
    if (result > 0) file.offset += result;
    return result;
  }

  pwrite(file: Description, offset: number, text: string): number {
    const data = Buffer.from(text);
    const result = this.call((token) =>
      this.fileSystem.write(file.node, file.handle, offset, data, user, token),
    );
    data.fill(0xff);
    return result;
  }

  pread(file: Description, offset: number, byteCount: number): string {
    this.fileSystem.settle();
    const bytes = this.fileSystem.read(file.node, file.handle, offset, byteCount);
    assert(typeof bytes !== 'number', `read: ${String(bytes)}`);
    return Buffer.from(bytes).toString();
  }

  dup(file: Description): void {
    file.descriptorCount += 1;
  }

  flush(file: Description): number {
    return this.call((token) => this.fileSystem.flush(file.node, file.handle, user, token));
  }

  fsync(file: Description): number {
    return this.call((token) => this.fileSystem.sync(file.node, file.handle, token));
  }

  close(file: Description): number {
    const result = this.flush(file);
    file.descriptorCount -= 1;
    if (file.descriptorCount === 0) this.release(file);
    return result;
  }

  release(file: Description): void {
    this.fileSystem.settle();
    this.fileSystem.release(file.node, file.handle);
    this.commit();
  }

  /** `printf text > path`; the error of whichever step failed. */
  save(path: string, text: string, mode = 'w'): number {
    const file = this.tryOpen(path, mode);
    if (typeof file === 'number') return file;
    const written = this.write(file, text);
    const closed = this.close(file);
    return written < 0 ? written : closed;
  }

  read(path: string): string {
    const file = this.open(path, 'r');
    const text = this.pread(file, 0, 1 << 20);
    this.close(file);
    return text;
  }

  ftruncate(file: Description, sizeBytes: number): number {
    this.fileSystem.settle();
    const result = this.fileSystem.setAttributes(file.node, file.handle, { sizeBytes }, user);
    return typeof result === 'number' ? result : 0;
  }

  truncate(path: string, sizeBytes: number): number {
    const result = this.fileSystem.setAttributes(this.node(path), undefined, { sizeBytes }, user);
    this.commit();
    return typeof result === 'number' ? result : 0;
  }

  makeDirectory(path: string): number {
    const [parent, name] = this.#split(path);
    const result = this.fileSystem.makeDirectory(parent, name, 0o755, user);
    this.commit();
    return typeof result === 'number' ? result : 0;
  }

  removeDirectory(path: string): number {
    const [parent, name] = this.#split(path);
    return this.call(() => this.fileSystem.removeDirectory(parent, name, user));
  }

  unlink(path: string): number {
    const [parent, name] = this.#split(path);
    return this.call((token) => this.fileSystem.unlink(parent, name, user, token));
  }

  rename(from: string, to: string, flags = 0): number {
    return this.call((token) => this.renameRequest(from, to, token, flags));
  }

  renameRequest(from: string, to: string, token: ReplyToken, flags = 0): Result {
    const [parent, name] = this.#split(from);
    const [newParent, newName] = this.#split(to);
    return this.fileSystem.rename(parent, name, newParent, newName, flags, user, token);
  }

  names(path: string): string[] {
    const entries = this.fileSystem.readDirectory(this.node(path));
    assert(typeof entries !== 'number');
    return entries.map((entry) => entry.name);
  }

  #split(path: string): [NodeId, string] {
    const slash = path.lastIndexOf('/');
    return slash === -1 ? [1, path] : [this.node(path.slice(0, slash)), path.slice(slash + 1)];
  }

  #restore(): KpiFileSystem {
    const deps = {
      store: this.store,
      content: this.store,
      clock: this.clock,
      storedBytes: () => this.storedBytes,
    };
    return KpiFileSystem.restore(deps, this.options);
  }
}
