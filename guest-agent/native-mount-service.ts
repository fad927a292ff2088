import assert from 'node:assert';
import type { MessagePort } from 'node:worker_threads';

import type { Cancel, Clock } from '../common/runtime/clock.ts';
import type { Log } from '../common/runtime/log.ts';
import type { Service } from '../common/runtime/service.ts';
import type { FileSystemReport } from './control-api.ts';
import { KpiFileSystem } from './files/kpi-file-system.ts';
import type { FileSystemOptions } from './files/options.ts';
import { FuseNativeBackend } from './fuse/fuse-native/fuse-native-backend.ts';
import { DatabaseContentReader } from './store/database-content-reader.ts';
import { StoreProgress } from './store/store-progress.ts';
import { type StoreSharedMemory, StoreThreadClient } from './store/store-rings.ts';

/** How often it is looked whether someone else has unmounted; fuse-native does not tell. */
const mountCheckIntervalMs = 1_000;

export interface NativeMountOptions {
  readonly mountPath: string;
  readonly dataDirectory: string;
  readonly fileSystem: FileSystemOptions;
  /** Of the store thread, which must run before the start. */
  readonly memory: StoreSharedMemory;
  /** Where the store thread's replies arrive; closed by `stop`. */
  readonly replies: MessagePort;
}

/**
 * The file system behind fuse-native, on the main thread as that crashes in others: the counterpart of FuseThreadService
 * and its thread. Asks for a stop when someone else unmounts.
 */
export class NativeMountService implements Service {
  readonly name = 'fuse-native';
  readonly #deps: {
    readonly clock: Clock;
    readonly log: Log;
    readonly requestStop: (reason: string) => void;
  };
  readonly #options: NativeMountOptions;
  #running:
    | {
        readonly content: DatabaseContentReader;
        readonly fileSystem: KpiFileSystem;
        readonly backend: FuseNativeBackend;
        readonly cancelCheck: Cancel;
      }
    | undefined;

  constructor(
    deps: {
      readonly clock: Clock;
      readonly log: Log;
      readonly requestStop: (reason: string) => void;
    },
    options: NativeMountOptions,
  ) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Rebuilds the tree and mounts; requests are served when this resolves. Throws MountError. */
  async start(): Promise<void> {
    const { clock, log, requestStop } = this.#deps;
    const { mountPath, dataDirectory, memory, replies } = this.#options;
    const content = new DatabaseContentReader(dataDirectory);
    const progress = new StoreProgress(memory.progress);
    const fileSystem = KpiFileSystem.restore(
      {
        store: new StoreThreadClient(memory),
        content,
        clock,
        storedBytes: () => progress.storedBytes(),
      },
      this.#options.fileSystem,
    );
    // Whoever starts this process has looked once whether the directory is empty (NativeMountPart); what comes into it while
    // a mount that someone took away is made anew must not keep the next process from mounting.
    const backend = new FuseNativeBackend(
      { clock, log },
      { mountPath, fileSystem, mayHideContent: true },
    );
    backend.receiveReplies(replies);
    try {
      await backend.start();
    } catch (error) {
      replies.close();
      content.close();
      throw error;
    }
    const cancelCheck = clock.every(mountCheckIntervalMs, () => {
      if (!backend.isMounted()) requestStop('mount-gone');
    });
    this.#running = { content, fileSystem, backend, cancelCheck };
  }

  report(): FileSystemReport {
    assert(this.#running !== undefined, 'not started');
    const { backend, fileSystem } = this.#running;
    return { requests: backend.requests, fileSystem: fileSystem.snapshot() };
  }

  async stop(): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    running.cancelCheck();
    await running.backend.stop();
    this.#options.replies.close();
    running.content.close();
  }
}
