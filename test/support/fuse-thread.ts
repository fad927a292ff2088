import { parentPort, workerData } from 'node:worker_threads';

import { silentLog } from '../../common/runtime/log.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import {
  runDevFuseSession,
  type SessionEnd,
  type Takeover,
} from '../../guest-agent/fuse/dev-fuse/dev-fuse-session.ts';
import { RequestActivity } from '../../guest-agent/fuse/dev-fuse/request-activity.ts';
import type { Attributes, NodeId, Result } from '../../guest-agent/fuse/file-system.ts';
import type { Negotiation } from '../../guest-agent/fuse/protocol/init.ts';
import { MemoryFileSystem } from './memory-file-system.ts';

/** What a test's fuse thread serves: a MemoryFileSystem on an open /dev/fuse. */
export interface FuseThreadData {
  readonly descriptor: number;
  readonly takeover: Takeover | null;
  /** Names whose save is refused, with the negated errno. */
  readonly refusedNames: readonly (readonly [string, number])[];
  /** Bits of initFlag2 to decline, as if the kernel were older. */
  readonly declined2: number;
  /** Dirty flushes are handed to the thread's parent, to be answered through a DevFuseReplySink. */
  readonly defers: boolean;
  /** Of a RequestActivity. */
  readonly activity?: SharedArrayBuffer;
  /** A look-up of this name keeps the thread for ever. */
  readonly endlessName?: string | null;
}

export type FuseThreadMessage =
  | { readonly type: 'negotiated'; readonly negotiation: Negotiation }
  | { readonly type: 'deferred'; readonly token: bigint }
  | { readonly type: 'ended'; readonly end: SessionEnd; readonly failed: number };

const data = workerData as FuseThreadData;
const tell = (message: FuseThreadMessage): void => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, not a window
  parentPort?.postMessage(message);
};
const counters = new StageCounters();

class EndlessFileSystem extends MemoryFileSystem {
  override lookup(parent: NodeId, name: string): Attributes | Result {
    while (name === data.endlessName);
    return super.lookup(parent, name);
  }
}

const end = runDevFuseSession({
  descriptor: data.descriptor,
  fileSystem: new EndlessFileSystem({
    nowUs: () => Date.now() * 1_000,
    refusedNames: new Map(data.refusedNames),
    ...(data.defers ? { defer: (token) => tell({ type: 'deferred', token }) } : {}),
  }),
  ...(data.activity === undefined ? {} : { activity: new RequestActivity(data.activity) }),
  log: { ...silentLog, error: (event, fields) => console.error(event, fields) },
  counters,
  ...(data.takeover === null ? {} : { takeover: data.takeover }),
  declined2: data.declined2,
  onNegotiated: (negotiation) => tell({ type: 'negotiated', negotiation }),
});
tell({ type: 'ended', end, failed: counters.failed });
