import assert from 'node:assert';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';

import { SystemClock } from '../../common/runtime/clock.ts';
import { createLog, type LogLevel } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { DevFuseReplySink } from '../fuse/dev-fuse/dev-fuse-reply-sink.ts';
import type { CrashPoint } from './crash-point.ts';
import { StoreEngine } from './store-engine.ts';
import { runStoreLoop, type StoreCommand, type StoreMessage } from './store-loop.ts';
import type { StoreOptions } from './store-options.ts';
import { StoreProgress } from './store-progress.ts';
import type { ReplySink } from './store-request.ts';
import { StoreQueue, type StoreSharedMemory, StoreSignal } from './store-rings.ts';

/** What the thread is started with. */
export interface StoreThreadData {
  readonly memory: StoreSharedMemory;
  readonly options: StoreOptions;
  /** Commands in, messages out. */
  readonly port: MessagePort;
  /** The descriptor of /dev/fuse; null: replies are posted to `replyPort`. */
  readonly replyDescriptor: number | null;
  /** Gets `{token, result, writtenBytes}` for each reply when there is no descriptor. */
  readonly replyPort: MessagePort | null;
  readonly logLevel: LogLevel;
  /** Tests only: where the process kills itself. */
  readonly crashPoint: CrashPoint | null;
}

// The entry of the worker thread: reads what it was given, builds, runs.
const data = workerData as StoreThreadData;
const log = createLog('store', data.logLevel);
const clock = new SystemClock();
const progress = new StoreProgress(data.memory.progress);
progress.reset();
const reachCrashPoint = (point: CrashPoint): void => {
  if (point === data.crashPoint) process.kill(process.pid, 'SIGKILL');
};
const engine = new StoreEngine(
  { clock, random: new SystemRandom(), log, reachCrashPoint },
  data.options,
);
tell({
  kind: 'started',
  generations: {
    encrypted: engine.generation('encrypted'),
    unencrypted: engine.generation('unencrypted'),
  },
});
try {
  runStoreLoop({
    queue: new StoreQueue(data.memory),
    signal: new StoreSignal(data.memory.signal),
    progress,
    engine,
    replySink: replySinkOf(data),
    clock,
    reachCrashPoint,
    takeCommands,
    tell,
  });
} finally {
  engine.close();
  tell({ kind: 'stopped' });
  data.port.close();
  data.replyPort?.close();
}

function tell(message: StoreMessage): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, not a window
  data.port.postMessage(message);
}

function takeCommands(): readonly StoreCommand[] {
  const commands: StoreCommand[] = [];
  for (;;) {
    const received: { readonly message: StoreCommand } | undefined = receiveMessageOnPort(
      data.port,
    );
    if (received === undefined) return commands;
    commands.push(received.message);
  }
}

function replySinkOf({ replyDescriptor, replyPort }: StoreThreadData): ReplySink {
  if (replyDescriptor !== null) return new DevFuseReplySink(replyDescriptor, log);
  assert(replyPort !== null, 'a descriptor or a port for replies');
  return {
    reply: (token, result, writtenBytes) => {
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, not a window
      replyPort.postMessage({ token, result, writtenBytes });
    },
  };
}
