import { once } from 'node:events';
import { statfs } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';

import type { Clock } from '../common/runtime/clock.ts';
import { compiledEntry } from '../common/runtime/package-root.ts';
import type { Service } from '../common/runtime/service.ts';
import type { FileSystemReport } from './control-api.ts';
import type { FuseThreadData, FuseThreadMessage } from './fuse-thread.ts';
import type { SessionEnd } from './fuse/dev-fuse/dev-fuse-session.ts';
import { RequestActivity } from './fuse/dev-fuse/request-activity.ts';
import type { Negotiation } from './fuse/protocol/init.ts';
import { StatusPage } from './status-page.ts';
import { StoreQueue } from './store/store-rings.ts';
import { threadMemoryLimits } from './thread-memory.ts';

/** How long a report may take: the thread may be waiting for the disk. */
const reportMaxMs = 1_000;
const reportPollMs = 2;

/**
 * The fuse thread, seen from the main thread. It ends when the mount is gone and in no other way (it sleeps in the
 * kernel), so `stop` waits for an unmount that someone else does: the supervisor.
 */
export class FuseThreadService implements Service {
  readonly name = 'fuse-thread';
  readonly #data: FuseThreadData;
  readonly #mountPath: string;
  readonly #clock: Clock;
  readonly #statusPage: StatusPage<FileSystemReport>;
  readonly #activity: RequestActivity;
  readonly #storeQueue: StoreQueue;
  readonly #listeners: {
    readonly onNegotiated: (negotiation: Negotiation) => void;
    readonly onEnded: (end: SessionEnd) => void;
    readonly onFailure: (error: unknown) => void;
  };
  #ended: Promise<unknown> | undefined;

  constructor(
    deps: {
      readonly clock: Clock;
      readonly onNegotiated: (negotiation: Negotiation) => void;
      /** The connection is gone: nothing is served any more. */
      readonly onEnded: (end: SessionEnd) => void;
      /** The thread died of an error. */
      readonly onFailure: (error: unknown) => void;
    },
    options: Omit<FuseThreadData, 'statusPage' | 'activity'> & { readonly mountPath: string },
  ) {
    const { mountPath, ...data } = options;
    this.#mountPath = mountPath;
    this.#clock = deps.clock;
    this.#listeners = deps;
    this.#data = {
      ...data,
      statusPage: StatusPage.allocate(),
      activity: RequestActivity.allocate(),
    };
    this.#activity = new RequestActivity(this.#data.activity);
    this.#storeQueue = new StoreQueue(data.memory);
    this.#statusPage = new StatusPage(this.#data.statusPage);
  }

  /** Resolves when requests are served. */
  async start(): Promise<void> {
    const worker = new Worker(compiledEntry('guest-agent/fuse-thread.ts'), {
      workerData: this.#data,
      resourceLimits: threadMemoryLimits,
    });
    this.#ended = once(worker, 'exit');
    await new Promise<void>((resolve, reject) => {
      let isServing = false;
      worker.on('message', (message: FuseThreadMessage) => {
        switch (message.kind) {
          case 'serving':
            isServing = true;
            resolve();
            return;
          case 'negotiated':
            this.#listeners.onNegotiated(message.negotiation);
            return;
          case 'ended':
          default:
            this.#listeners.onEnded(message.end);
        }
      });
      worker.on('error', (error) => {
        if (isServing) this.#listeners.onFailure(error);
        else reject(error);
      });
    });
  }

  /** What the thread counts; undefined when it does not answer within a second, as while the disk is stuck. */
  async report(): Promise<FileSystemReport | undefined> {
    const question = this.#statusPage.ask();
    // Any request wakes the thread. Its own answer may be slower than the page, and does not matter.
    statfs(this.#mountPath).catch(() => {});
    const deadlineMs = this.#clock.monotonicMs() + reportMaxMs;
    for (;;) {
      const report = this.#statusPage.answer(question);
      if (report !== undefined || this.#clock.monotonicMs() > deadlineMs) return report;
      await this.#clock.sleep(reportPollMs);
    }
  }

  /**
   * False when the thread is at the same request as at the last call, unless it may wait for the store thread, which the
   * disk keeps: that is no reason to end a process whose callers would get their answers when the disk is back.
   */
  isResponsive(): boolean {
    return !this.#activity.isStuck() || !this.#storeQueue.isEmpty;
  }

  async stop(): Promise<void> {
    await this.#ended;
  }
}
