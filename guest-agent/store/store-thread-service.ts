import assert from 'node:assert';
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from 'node:worker_threads';

import type { Area } from '../../common/channel/area.ts';
import type { LogLevel } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { Service } from '../../common/runtime/service.ts';
import { threadMemoryLimits } from '../thread-memory.ts';
import type { CrashPoint } from './crash-point.ts';
import type { StoreCommand, StoreMessage } from './store-loop.ts';
import type { StoreOptions } from './store-options.ts';
import { StoreProgress } from './store-progress.ts';
import { allocateStoreMemory, type StoreSharedMemory, StoreSignal } from './store-rings.ts';
import type { StoreThreadData } from './store-thread.ts';

/**
 * The store thread, seen from the main thread. `memory` is for the thread of the file system (a StoreThreadClient).
 * Stop the file system first: `stop` does what is queued, closes the databases and ends the thread.
 */
export class StoreThreadService implements Service {
  readonly name = 'store-thread';
  readonly memory: StoreSharedMemory;
  readonly progress: StoreProgress;
  readonly #data: Omit<StoreThreadData, 'memory' | 'port'>;
  readonly #onMessage: (message: StoreMessage) => void;
  readonly #onFailure: (error: unknown) => void;
  readonly #signal: StoreSignal;
  #port: MessagePort | undefined;
  #ended: Promise<void> | undefined;

  constructor(
    deps: {
      /** Events, answers to commands; not called after `stop` resolved. */
      readonly onMessage: (message: StoreMessage) => void;
      /** The thread died: nothing is saved any more, the process should end. */
      readonly onFailure: (error: unknown) => void;
    },
    options: {
      readonly store: StoreOptions;
      readonly replyDescriptor: number | null;
      readonly replyPort: MessagePort | null;
      readonly logLevel: LogLevel;
      readonly crashPoint?: CrashPoint;
    },
  ) {
    this.memory = allocateStoreMemory(options.store.fileBytesMax);
    this.progress = new StoreProgress(this.memory.progress);
    this.progress.reset();
    this.#signal = new StoreSignal(this.memory.signal);
    this.#onMessage = deps.onMessage;
    this.#onFailure = deps.onFailure;
    this.#data = {
      options: options.store,
      replyDescriptor: options.replyDescriptor,
      replyPort: options.replyPort,
      logLevel: options.logLevel,
      crashPoint: options.crashPoint ?? null,
    };
  }

  /** Resolves when the databases are open and recovered; rejects with what kept them from it. */
  start(): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const { replyPort } = this.#data;
    const data: StoreThreadData = { ...this.#data, memory: this.memory, port: port2 };
    const worker = new Worker(compiledEntry('guest-agent/store/store-thread.ts'), {
      workerData: data,
      resourceLimits: threadMemoryLimits,
      transferList: replyPort === null ? [port2] : [port2, replyPort],
    });
    return new Promise((resolve, reject) => {
      let isStarted = false;
      port1.on('message', (message: StoreMessage) => {
        if (message.kind === 'started') {
          isStarted = true;
          resolve();
        }
        this.#onMessage(message);
      });
      worker.on('error', (error) => {
        if (isStarted) this.#onFailure(error);
        else reject(error);
      });
      this.#ended = new Promise((ended) => {
        worker.on('exit', () => {
          // The event can overtake the thread's last messages, which closing the port would drop.
          this.takeMessages();
          port1.close();
          ended();
        });
      });
    });
  }

  /**
   * Hands over what the thread has said so far, without waiting for the event loop. A frontier that was read before is
   * then fully announced: the thread tells of rows first and raises the frontier after.
   */
  takeMessages(): void {
    if (this.#port === undefined) return;
    for (;;) {
      const received: { readonly message: StoreMessage } | undefined = receiveMessageOnPort(
        this.#port,
      );
      if (received === undefined) return;
      this.#onMessage(received.message);
    }
  }

  /** Replaces the triggers of `area`; `watched` follows when they are in place. */
  watch(area: Area, patterns: readonly string[]): void {
    this.#command({ kind: 'watch', area, patterns });
  }

  /** The host has every row of `generation` through `rowId`. */
  acknowledge(area: Area, generation: string, rowId: number): void {
    this.#command({ kind: 'acknowledge', area, generation, rowId });
  }

  /** Asks for the counters; `report` follows. */
  requestReport(): void {
    this.#command({ kind: 'report' });
  }

  async stop(): Promise<void> {
    if (this.#ended === undefined) return;
    this.#command({ kind: 'stop' });
    await this.#ended;
  }

  #command(command: StoreCommand): void {
    assert(this.#port !== undefined, 'not started');
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, not a window
    this.#port.postMessage(command);
    this.#signal.ring();
  }
}
