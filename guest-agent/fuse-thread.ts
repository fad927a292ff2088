import assert from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';

import { SystemClock } from '../common/runtime/clock.ts';
import { createLog, type LogLevel } from '../common/runtime/log.ts';
import { StageCounters } from '../common/runtime/stage-counters.ts';
import type { FileSystemReport } from './control-api.ts';
import { KpiFileSystem } from './files/kpi-file-system.ts';
import type { FileSystemOptions } from './files/options.ts';
import {
  runDevFuseSession,
  type SessionEnd,
  type Takeover,
} from './fuse/dev-fuse/dev-fuse-session.ts';
import { RequestActivity } from './fuse/dev-fuse/request-activity.ts';
import type { Negotiation } from './fuse/protocol/init.ts';
import { StatusPage } from './status-page.ts';
import { DatabaseContentReader } from './store/database-content-reader.ts';
import { StoreProgress } from './store/store-progress.ts';
import { type StoreSharedMemory, StoreThreadClient } from './store/store-rings.ts';

/** What the thread is started with. */
export interface FuseThreadData {
  /** An open, mounted /dev/fuse; stays the main thread's to close. */
  readonly descriptor: number;
  readonly takeover: Takeover | null;
  readonly memory: StoreSharedMemory;
  /** Of a {@link StatusPage} of {@link FileSystemReport}. */
  readonly statusPage: SharedArrayBuffer;
  /** Of a {@link RequestActivity}. */
  readonly activity: SharedArrayBuffer;
  readonly dataDirectory: string;
  readonly fileSystem: FileSystemOptions;
  readonly logLevel: LogLevel;
}

/** What the thread tells the main thread unasked. */
export type FuseThreadMessage =
  /** The tree is rebuilt; requests are served from now on. */
  | { readonly kind: 'serving' }
  /** INIT was answered. */
  | { readonly kind: 'negotiated'; readonly negotiation: Negotiation }
  | { readonly kind: 'ended'; readonly end: SessionEnd };

// The entry of the worker thread: reads what it was given, builds, runs until the mount is gone.
const data = workerData as FuseThreadData;
const log = createLog('fuse', data.logLevel);
const content = new DatabaseContentReader(data.dataDirectory);
const counters = new StageCounters();
const statusPage = new StatusPage<FileSystemReport>(data.statusPage);
const progress = new StoreProgress(data.memory.progress);
const fileSystem = KpiFileSystem.restore(
  {
    store: new StoreThreadClient(data.memory),
    content,
    clock: new SystemClock(),
    storedBytes: () => progress.storedBytes(),
    onSettled: () => {
      statusPage.serve(report);
    },
  },
  data.fileSystem,
);
tell({ kind: 'serving' });
try {
  const end = runDevFuseSession({
    descriptor: data.descriptor,
    fileSystem,
    log,
    counters,
    activity: new RequestActivity(data.activity),
    ...(data.takeover === null ? {} : { takeover: data.takeover }),
    onNegotiated: (negotiation) => {
      tell({ kind: 'negotiated', negotiation });
    },
  });
  tell({ kind: 'ended', end });
} finally {
  content.close();
}

function report(): FileSystemReport {
  return { requests: counters.snapshot(), fileSystem: fileSystem.snapshot() };
}

function tell(message: FuseThreadMessage): void {
  assert(parentPort !== null, 'runs as a worker thread');
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, not a window
  parentPort.postMessage(message);
}
