import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { MountError } from '../mount/mount-error.ts';

/** Answers one operation: a negated errno or a count, then the operation's value. */
export type Callback<Value = never> = (result: number, value?: Value) => void;

export interface NativeStat {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly nlink: number;
  readonly ino: number;
  readonly blksize: number;
  readonly blocks: number;
  readonly atime: Date;
  readonly mtime: Date;
  readonly ctime: Date;
}

export interface NativeStatfs {
  readonly bsize: number;
  readonly frsize: number;
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly favail: number;
  readonly namemax: number;
}

/** The operations that we implement, as fuse-native's README has them. Times are milliseconds. */
export interface NativeOperations {
  getattr(path: string, done: Callback<NativeStat>): void;
  statfs(path: string, done: Callback<NativeStatfs>): void;
  readdir(path: string, done: Callback<readonly string[]>): void;
  truncate(path: string, size: number, done: Callback): void;
  ftruncate(path: string, fd: number, size: number, done: Callback): void;
  chown(path: string, uid: number, gid: number, done: Callback): void;
  chmod(path: string, mode: number, done: Callback): void;
  utimens(path: string, accessMs: number, modifiedMs: number, done: Callback): void;
  mknod(path: string, mode: number, device: number, done: Callback): void;
  mkdir(path: string, mode: number, done: Callback): void;
  rmdir(path: string, done: Callback): void;
  unlink(path: string, done: Callback): void;
  rename(from: string, to: string, done: Callback): void;
  link(from: string, to: string, done: Callback): void;
  symlink(from: string, to: string, done: Callback): void;
  open(path: string, flags: number, done: Callback<number>): void;
  read(
    path: string,
    fd: number,
    into: Buffer,
    length: number,
    position: number,
    done: Callback,
  ): void;
  write(
    path: string,
    fd: number,
    from: Buffer,
    length: number,
    position: number,
    done: Callback,
  ): void;
  flush(path: string, fd: number, done: Callback): void;
  fsync(path: string, dataOnly: boolean, fd: number, done: Callback): void;
  fsyncdir(path: string, dataOnly: boolean, fd: number, done: Callback): void;
  release(path: string, fd: number, done: Callback): void;
}

export interface NativeFuse {
  mount(done: (error: Error | null) => void): void;
  unmount(done: (error: Error | null) => void): void;
}

/** fuse-native's class. Options become mount options, joined by commas. */
export type NativeFuseClass = new (
  path: string,
  operations: NativeOperations,
  options: Readonly<Record<string, string | number | boolean>>,
) => NativeFuse;

/**
 * Loads fuse-native, an optional dependency that needs the system's libfuse 2. Main thread only: it crashes in a
 * worker. Throws {@link MountError} `fuse-missing` with what to install.
 */
export async function loadFuseNative(): Promise<NativeFuseClass> {
  const name = 'fuse-native';
  try {
    const loaded = (await import(name)) as { readonly default: NativeFuseClass };
    return loaded.default;
  } catch (cause) {
    const isAbsent = systemErrorCode(cause) === 'ERR_MODULE_NOT_FOUND';
    throw new MountError(
      'fuse-missing',
      isAbsent
        ? 'the fuse-native backend is not installed; run: npm install fuse-native (or use --fuse-backend dev-fuse)'
        : 'fuse-native needs libfuse 2; as root: apt-get install libfuse2 (or use --fuse-backend dev-fuse)',
      { cause },
    );
  }
}
