import type { MessagePort } from 'node:worker_threads';

import type { Clock } from '../../../common/runtime/clock.ts';
import type { Log } from '../../../common/runtime/log.ts';
import type { Service } from '../../../common/runtime/service.ts';
import { type StageCounts, StageCounters } from '../../../common/runtime/stage-counters.ts';
import type { ReplySink } from '../../store/store-request.ts';
import type { FileSystem, ReplyToken } from '../file-system.ts';
import { mountsArePrivate } from '../mount/fusermount.ts';
import { MountError } from '../mount/mount-error.ts';
import {
  isMountedAt,
  type MountPoint,
  prepareMountPoint,
  releaseMountPoint,
} from '../mount/mount-point.ts';
import { detach } from '../mount/unmount.ts';
import { loadFuseNative, type NativeFuse } from './fuse-native-module.ts';
import { guardOperations } from './guarded-operations.ts';
import { FuseNativeOperations } from './native-operations.ts';

/**
 * Mount options that fuse-native has no names for. It joins all its options with commas, so they ride on the name of
 * the file system: reads and writes go to their handle, O_TRUNC arrives with the open, nothing is cached.
 */
const fileSystemName =
  'isobar,direct_io,atomic_o_trunc,big_writes,use_ino,attr_timeout=0,entry_timeout=0';

const closingWaitMs = 10;
const closingWaitsMax = 50;

/**
 * Serves a FileSystem through fuse-native and libfuse 2, on the main thread. Nothing in this process may use the mount
 * synchronously: it would wait for itself. What it can't do is in `capabilitiesOf`.
 */
export class FuseNativeBackend implements Service, ReplySink {
  readonly name = 'fuse-native';
  readonly #mountPath: string;
  readonly #mayHideContent: boolean;
  readonly #operations: FuseNativeOperations;
  readonly #counters = new StageCounters();
  readonly #clock: Clock;
  readonly #log: Log;
  #point: MountPoint | undefined;
  #fuse: NativeFuse | undefined;

  constructor(
    deps: { readonly clock: Clock; readonly log: Log },
    options: {
      readonly mountPath: string;
      readonly fileSystem: FileSystem;
      /** Mounts over what is in the directory; by default that is refused. */
      readonly mayHideContent?: boolean;
    },
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#mountPath = options.mountPath;
    this.#mayHideContent = options.mayHideContent ?? false;
    this.#operations = new FuseNativeOperations(options.fileSystem, {
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
      pid: process.pid,
    });
  }

  /** Mounts; the mount can be used when this resolves. Throws {@link MountError}. */
  async start(): Promise<void> {
    const Fuse = await loadFuseNative();
    const point = await prepareMountPoint(this.#mountPath, this.#mayHideContent);
    const operations = guardOperations(this.#operations, {
      counters: this.#counters,
      log: this.#log,
    });
    const fuse = new Fuse(point.path, operations, {
      fsname: this.#mayHideContent ? `${fileSystemName},nonempty` : fileSystemName,
      subtype: 'isobar',
      defaultPermissions: true,
      allowOther: !mountsArePrivate(),
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

  /** Unmounts, and waits half a second for callers to close what they have open; idempotent. */
  async stop(): Promise<void> {
    const fuse = this.#fuse;
    const point = this.#point;
    if (fuse === undefined || point === undefined) return;
    this.#fuse = undefined;
    const failure = await new Promise<Error | null>((resolve) => {
      fuse.unmount(resolve);
    });
    // Someone else may have unmounted: then there is nothing to detach either.
    if (failure !== null) await detach(point.path);
    // The mount is out of sight, but files that are open are served on until they are closed.
    for (let wait = 0; this.#operations.openCount > 0 && wait < closingWaitsMax; wait += 1) {
      await this.#clock.sleep(closingWaitMs);
    }
    releaseMountPoint(point);
  }

  /** Whether the mount is there; looks into the mount table, never at the mount. */
  isMounted(): boolean {
    return this.#point !== undefined && isMountedAt(this.#point.path);
  }

  /** Every request so far. */
  get requests(): StageCounts {
    return this.#counters.snapshot();
  }

  /** Main thread only. */
  reply(token: ReplyToken, result: number, writtenBytes: number | null): void {
    this.#operations.reply(token, result, writtenBytes);
  }

  /** Answers what the store thread posts to the other end of `port`. */
  receiveReplies(port: MessagePort): void {
    port.on('message', (reply: PostedReply) => {
      this.reply(reply.token, reply.result, reply.writtenBytes);
    });
  }
}

/** What the store thread posts for each reply. */
interface PostedReply {
  readonly token: ReplyToken;
  readonly result: number;
  readonly writtenBytes: number | null;
}

function mountRefused(path: string, cause: unknown): MountError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new MountError(
    'mount-failed',
    `mounting on ${path} by fuse-native failed (${reason}); run as root, or use --fuse-backend dev-fuse`,
    { context: { path }, cause },
  );
}
