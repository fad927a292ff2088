import type { MessagePort } from 'node:worker_threads';

import type { Service } from '../../../common/runtime/service.ts';
import type { ReplySink } from '../../store/store-request.ts';
import type { FileSystem, ReplyToken } from '../file-system.ts';
import { MountError } from '../mount/mount-error.ts';
import { type MountPoint, prepareMountPoint, releaseMountPoint } from '../mount/mount-point.ts';
import { detach } from '../mount/unmount.ts';
import { loadFuseNative, type NativeFuse } from './fuse-native-module.ts';
import { FuseNativeOperations } from './native-operations.ts';

/**
 * Mount options that fuse-native has no names for. It joins all its options with commas, so they ride on the name of
 * the file system: reads and writes go to their handle, O_TRUNC arrives with the open, nothing is cached.
 */
const fileSystemName =
  'isobar,direct_io,atomic_o_trunc,big_writes,use_ino,attr_timeout=0,entry_timeout=0';

/**
 * Serves a FileSystem through fuse-native and libfuse 2, on the main thread. Nothing in this process may use the mount
 * synchronously: it would wait for itself. What it can't do is in `capabilitiesOf`.
 */
export class FuseNativeBackend implements Service, ReplySink {
  readonly name = 'fuse-native';
  readonly #mountPath: string;
  readonly #operations: FuseNativeOperations;
  #point: MountPoint | undefined;
  #fuse: NativeFuse | undefined;

  constructor(options: { readonly mountPath: string; readonly fileSystem: FileSystem }) {
    this.#mountPath = options.mountPath;
    this.#operations = new FuseNativeOperations(options.fileSystem, {
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
      pid: process.pid,
    });
  }

  /** Mounts; the mount can be used when this resolves. Throws {@link MountError}. */
  async start(): Promise<void> {
    const Fuse = await loadFuseNative();
    const point = await prepareMountPoint(this.#mountPath);
    const fuse = new Fuse(point.path, this.#operations, {
      fsname: fileSystemName,
      subtype: 'isobar',
      defaultPermissions: true,
      allowOther: process.geteuid?.() === 0,
      timeout: false,
    });
    try {
      await new Promise<void>((resolve, reject) => {
        fuse.mount((error) => {
          if (error === null) resolve();
          else reject(error);
        });
      });
    } catch (cause) {
      releaseMountPoint(point);
      throw mountRefused(point.path, cause);
    }
    this.#fuse = fuse;
    this.#point = point;
  }

  async stop(): Promise<void> {
    const fuse = this.#fuse;
    const point = this.#point;
    if (fuse === undefined || point === undefined) return;
    this.#fuse = undefined;
    const failure = await new Promise<Error | null>((resolve) => {
      fuse.unmount(resolve);
    });
    if (failure !== null) await detach(point.path);
    releaseMountPoint(point);
  }

  /** Main thread only; the store thread answers through a {@link PostedReplySink}. */
  reply(token: ReplyToken, result: number, writtenBytes: number | null): void {
    this.#operations.reply(token, result, writtenBytes);
  }

  /** Answers what a {@link PostedReplySink} sends to the other end of `port`. */
  receiveReplies(port: MessagePort): void {
    port.on('message', (reply: PostedReply) => {
      this.reply(reply.token, reply.result, reply.writtenBytes);
    });
  }
}

interface PostedReply {
  readonly token: ReplyToken;
  readonly result: number;
  readonly writtenBytes: number | null;
}

/** The store thread's end: hands replies over to the main thread, where fuse-native lives. */
export class PostedReplySink implements ReplySink {
  readonly #port: MessagePort;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  reply(token: ReplyToken, result: number, writtenBytes: number | null): void {
    const reply: PostedReply = { token, result, writtenBytes };
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, not a window
    this.#port.postMessage(reply);
  }
}

function mountRefused(path: string, cause: unknown): MountError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new MountError(
    'mount-failed',
    `mounting on ${path} by fuse-native failed (${reason}); run as root, or use --fuse-backend dev-fuse`,
    { context: { path }, cause },
  );
}
