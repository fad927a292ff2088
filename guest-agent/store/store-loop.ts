import { type Area, areas } from '../../common/channel/area.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { AreaCounters } from './area-store.ts';
import type { ReachCrashPoint } from './crash-point.ts';
import type { HeldReport, StoreEngine, StoreEvent } from './store-engine.ts';
import type { StoreProgress } from './store-progress.ts';
import { type ReplySink, type StoreRequest } from './store-request.ts';
import {
  releaseLookIntervalMs,
  releaseLookMs,
  type StoreQueue,
  type StoreSignal,
} from './store-rings.ts';

/** What the main thread asks of the store thread, in order, between two batches. */
export type StoreCommand =
  /** Replaces the triggers of `area`; answered by `watched`. */
  | { readonly kind: 'watch'; readonly area: Area; readonly patterns: readonly string[] }
  | {
      readonly kind: 'acknowledge';
      readonly area: Area;
      readonly generation: string;
      readonly rowId: number;
    }
  | { readonly kind: 'report' }
  | { readonly kind: 'stop' };

/** What the store thread tells the main thread. */
export type StoreMessage =
  | StoreEvent
  | { readonly kind: 'started'; readonly generations: Readonly<Record<Area, string>> }
  | { readonly kind: 'watched'; readonly area: Area }
  | {
      readonly kind: 'report';
      readonly counters: Readonly<Record<Area, AreaCounters>>;
      /** Saves that are committed but not published, oldest first, up to {@link heldReportedMax}. */
      readonly held: readonly HeldReport[];
      readonly acknowledgedRowIds: Readonly<Record<Area, number>>;
    }
  | { readonly kind: 'stopped' };

/** Of one report. */
const heldReportedMax = 100;

/** A batch is everything that is queued, up to this; what comes later has a commit of its own. */
const batchRequestsMax = 1_024;
/** Nothing came for so long: the WAL can be emptied without anyone waiting for it. */
const idleAfterMs = 250;

/**
 * The store thread's life, until a `stop` command:
 *
 *   take all -> apply, COMMIT -> outcomes -> replies -> timers -> events -> checkpoint if long -> sleep
 *
 * An outcome is there before its reply, so the file system knows it before whatever the reply brings about.
 */
export function runStoreLoop(deps: {
  readonly queue: StoreQueue;
  readonly signal: StoreSignal;
  readonly progress: StoreProgress;
  readonly engine: StoreEngine;
  readonly replySink: ReplySink;
  readonly clock: Clock;
  readonly reachCrashPoint: ReachCrashPoint;
  readonly takeCommands: () => readonly StoreCommand[];
  readonly tell: (message: StoreMessage) => void;
}): void {
  const { queue, signal, progress, engine, clock, tell } = deps;
  let isIdle = false;
  let lookUntilMs = 0;
  for (;;) {
    const signalCount = signal.count();
    engine.promiseWatermark(progress.beginBatch());
    const batch = queue.take(batchRequestsMax);
    if (batch.length > 0) {
      answer(deps, batch);
      isIdle = false;
    }
    const isHeldShortly = batch.length > 0 && engine.oldestHeldUs() !== undefined;
    if (isHeldShortly) lookUntilMs = clock.monotonicMs() + releaseLookMs + releaseLookIntervalMs;
    else if (batch.length > 0) lookUntilMs = 0;
    const commands = deps.takeCommands();
    for (const command of commands) {
      if (command.kind !== 'stop') carryOut(engine, command, tell);
    }
    const dueMs = engine.tick();
    // Before the frontier rises: whoever sees it can hear of what is below it.
    for (const event of engine.takeEvents()) {
      // Without a watch nobody fetches by event, and each message would wake the main thread.
      if (event.kind !== 'published' || engine.isWatched(event.area)) tell(event);
    }
    const frontiers = {
      encrypted: engine.frontier('encrypted'),
      unencrypted: engine.frontier('unencrypted'),
    };
    progress.endBatch(frontiers, engine.oldestHeldUs(), queue.isEmpty);
    engine.afterReplies();
    for (const area of areas) progress.noteStoredBytes(area, engine.storedBytes(area));
    if (commands.some(({ kind }) => kind === 'stop') && queue.isEmpty) return;
    if (signal.count() !== signalCount) continue;

    const nowMs = clock.monotonicMs();
    const timeoutMs = Math.max(0, dueMs - nowMs);
    if (nowMs < lookUntilMs) {
      signal.wait(signalCount, Math.min(timeoutMs, releaseLookIntervalMs));
      continue;
    }
    signal.wait(signalCount, isIdle ? timeoutMs : Math.min(timeoutMs, idleAfterMs));
    if (!isIdle && timeoutMs >= idleAfterMs && signal.count() === signalCount) {
      engine.idle();
      isIdle = true;
    }
  }
}

function answer(
  deps: {
    readonly queue: StoreQueue;
    readonly engine: StoreEngine;
    readonly replySink: ReplySink;
    readonly reachCrashPoint: ReachCrashPoint;
  },
  batch: readonly StoreRequest[],
): void {
  const outcomes = deps.engine.apply(batch);
  for (const outcome of outcomes) deps.queue.push(outcome);
  deps.reachCrashPoint('after-outcomes');
  for (const [index, request] of batch.entries()) {
    if (!('token' in request) || request.token === null) continue;
    const result = outcomes[index]?.result ?? 0;
    const writtenBytes = request.kind === 'append' ? request.writtenBytes : null;
    deps.replySink.reply(request.token, result, result < 0 ? null : writtenBytes);
  }
}

function carryOut(
  engine: StoreEngine,
  command: Exclude<StoreCommand, { kind: 'stop' }>,
  tell: (message: StoreMessage) => void,
): void {
  switch (command.kind) {
    case 'watch':
      engine.watch(command.area, command.patterns);
      tell({ kind: 'watched', area: command.area });
      return;
    case 'acknowledge':
      for (const event of engine.acknowledge(command.area, command.generation, command.rowId)) {
        tell(event);
      }
      return;
    case 'report':
    default: {
      tell({
        kind: 'report',
        counters: {
          encrypted: { ...engine.counters('encrypted') },
          unencrypted: { ...engine.counters('unencrypted') },
        },
        held: engine.held(heldReportedMax),
        acknowledgedRowIds: {
          encrypted: engine.acknowledgedRowId('encrypted'),
          unencrypted: engine.acknowledgedRowId('unencrypted'),
        },
      });
    }
  }
}
