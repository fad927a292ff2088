import assert from 'node:assert';

import type { FrameAppender, FrameForwarder } from '../../broker/ports.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Service } from '../../common/runtime/service.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import type { Database, Transaction } from '../../common/sqlite/database.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import type { EncodedFrame, VmState } from '../../common/wire/frame.ts';
import type { VmDescriptor, VmId } from '../../common/wire/vm-descriptor.ts';
import { engineBoundsDefault, type EngineBounds } from '../specifiers/engine-bounds.ts';
import type { GuestListener, GuestRowBatch } from '../vm/guest-listener.ts';
import type { AtCrashPoint } from './crash-point.ts';
import { OriginError } from './origin-error.ts';
import type { StoreMark } from './store-mark.ts';
import { VmOrigin, type OriginEvent, type VmProtector } from './vm-origin.ts';

export interface OriginOptions {
  /** The status stream speaks at least this often. */
  readonly statusIntervalMs: number;
  readonly engineBounds: EngineBounds;
}

export const originOptionsDefault: OriginOptions = {
  statusIntervalMs: 5_000,
  engineBounds: engineBoundsDefault,
};

export interface OriginDeps {
  /** The database that the appender writes to as well. */
  readonly database: Database;
  readonly appender: FrameAppender;
  readonly forwarder: FrameForwarder;
  /** Is told for whom each VM's data is sealed, and knows which epochs are signed. */
  readonly protector?: VmProtector;
  readonly clock: Clock;
  readonly log: Log;
  /** Absent: an older database in the place of this one is not noticed. */
  readonly mark?: StoreMark;
  readonly atCrashPoint?: AtCrashPoint;
}

/**
 * Events of one VM that may wait for a commit, so that a wild client can't fill the memory. More are refused and counted,
 * but for a change of what is measured, which takes the place of one that waits.
 */
const inboxEventsMax = 10_000;
/** A timer is never set further ahead than this: wall time may step. */
const timerMaxMs = 60_000;
/** After a failed commit the next is tried this much later. */
const retryDelayMs = 500;

interface Member {
  readonly origin: VmOrigin;
  inbox: OriginEvent[];
  /** The newest watermark that moves nothing by itself: it goes first in whatever is committed next. */
  restingWatermarkUs: number | null;
  /** Callers whose rows are in the inbox. */
  waiting: Waiting[];
  vmState: VmState;
  nextStatusMs: number;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Where a VM's streams begin. Everything that arrived while the last commit ran goes into the next one, over all VMs:
 * frames, guest cursors and engine states in ONE transaction; then the frames are forwarded; then the guests'
 * rows are acknowledged. A single row goes at once, and nothing runs while nothing is due.
 */
export class Origin implements Service {
  readonly name = 'origin';
  readonly #deps: OriginDeps;
  readonly #options: OriginOptions;
  readonly #members = new Map<VmId, Member>();
  readonly #atCrashPoint: AtCrashPoint;
  readonly #writeMembers: Transaction<
    (members: readonly Member[], nowUs: number, nowMs: number) => void
  >;
  #isScheduled = false;
  #isRunning = false;
  #cancelTimer: Cancel | null = null;

  constructor(deps: OriginDeps, options: OriginOptions = originOptionsDefault) {
    this.#deps = deps;
    this.#options = options;
    this.#atCrashPoint = deps.atCrashPoint ?? (() => {});
    this.#writeMembers = deps.database.transaction((members, nowUs, nowMs) => {
      this.#write(members, nowUs, nowMs);
    });
  }

  start(): Promise<void> {
    if (this.#deps.mark?.open() === true) {
      this.#deps.log.warn('collector-database-restored', {
        effect:
          'each VM begins a new epoch; rows since the copy are delivered again as far as guests have them',
      });
    }
    this.#isRunning = true;
    return Promise.resolve();
  }

  /** Commits what has arrived and folds the journals. */
  stop(): Promise<void> {
    if (!this.#isRunning) return Promise.resolve();
    this.#commit();
    this.#isRunning = false;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    const fold = this.#deps.database.transaction(() => {
      for (const { origin } of this.#members.values()) origin.snapshot();
    });
    fold.immediate();
    this.#deps.mark?.close();
    for (const member of this.#members.values()) rejectAll(member, stoppedError());
    this.#members.clear();
    return Promise.resolve();
  }

  /** Begins, or goes on with, the streams of a VM. Durable on return. */
  add(descriptor: VmDescriptor): void {
    const { clock, log } = this.#deps;
    const origin = this.#makeVmOrigin(descriptor.id);
    const frames = this.#append(() => {
      const stored = origin.load();
      if (stored.kind === 'unreadable') {
        const { reason, lostCount } = stored;
        log.error('engine-state-unreadable', { vm: descriptor.id, reason, lostCount });
      }
      const opened = origin.open(descriptor, clock.wallUs(), stored);
      origin.writeState();
      return opened;
    });
    this.#members.set(descriptor.id, {
      origin,
      inbox: [],
      restingWatermarkUs: null,
      waiting: [],
      vmState: 'unknown',
      nextStatusMs: clock.monotonicMs(),
    });
    if (frames.length > 0) this.#deps.forwarder.forward(frames);
    this.#schedule();
  }

  /** Changes what is measured, each specifier from its next boundary on. */
  update(descriptor: VmDescriptor): void {
    this.#put(descriptor.id, { kind: 'plan', descriptor });
  }

  /** Ends a VM's streams in order and forgets its state, also of one that was not added. Durable on return. */
  remove(vm: VmId): void {
    const member = this.#members.get(vm);
    if (member !== undefined) this.#commit();
    this.#members.delete(vm);
    const origin = member?.origin ?? this.#makeVmOrigin(vm);
    const frames = this.#append(() => origin.close());
    if (frames.length > 0) this.#deps.forwarder.forward(frames);
    if (member !== undefined) rejectAll(member, stoppedError());
  }

  /** Takes what the host itself measured, all of one time. */
  measured(vm: VmId, measurements: readonly Measurement[]): void {
    if (measurements.length > 0) this.#put(vm, { kind: 'measured', measurements });
  }

  /** What the status stream says from now on; a change is said at once. */
  setVmState(vm: VmId, vmState: VmState): void {
    const member = this.#members.get(vm);
    if (member === undefined || member.vmState === vmState) return;
    member.vmState = vmState;
    member.nextStatusMs = this.#deps.clock.monotonicMs();
    this.#schedule();
  }

  /** Where a guest channel's client delivers; undefined for an unknown VM. */
  guestListener(vm: VmId): GuestListener | undefined {
    const member = this.#members.get(vm);
    if (member === undefined) return undefined;
    return {
      setClock: (clock) => {
        member.origin.setClock(clock);
      },
      cursor: (area) => member.origin.cursor(area),
      connected: () => {
        this.setVmState(vm, 'running');
      },
      generation: (area, generation) => {
        this.#put(vm, { kind: 'generation', area, generation });
      },
      rows: (batch) => this.#takeRows(vm, batch),
      watermark: (guestTimeUs) => {
        if (member.inbox.length > 0 || member.origin.isMovedBy(guestTimeUs)) {
          this.#put(vm, { kind: 'watermark', guestTimeUs });
        } else member.restingWatermarkUs = guestTimeUs;
      },
      disconnected: () => {
        this.setVmState(vm, 'silent');
      },
    };
  }

  /** What of a VM was taken and committed; undefined for an unknown VM. */
  counts(vm: VmId): { readonly inputs: StageCounts; readonly deliveries: StageCounts } | undefined {
    const origin = this.#members.get(vm)?.origin;
    if (origin === undefined) return undefined;
    return { inputs: origin.counts, deliveries: origin.deliveryCounts };
  }

  vmState(vm: VmId): VmState {
    return this.#members.get(vm)?.vmState ?? 'unknown';
  }

  #makeVmOrigin(vm: VmId): VmOrigin {
    return new VmOrigin(this.#deps, vm, this.#options.engineBounds);
  }

  /** One transaction that appends frames, outside the commits of what arrives. */
  #append(work: () => readonly EncodedFrame[]): readonly EncodedFrame[] {
    const { database, mark } = this.#deps;
    const transaction = database.transaction(() => {
      const frames = work();
      if (frames.length > 0) mark?.count();
      return frames;
    });
    const frames = transaction.immediate();
    if (frames.length > 0) mark?.committed();
    return frames;
  }

  #takeRows(vm: VmId, batch: GuestRowBatch): Promise<void> {
    return new Promise((resolve, reject) => {
      const member = this.#members.get(vm);
      if (member === undefined || !this.#isRunning) {
        reject(stoppedError());
        return;
      }
      if (!this.#put(vm, { kind: 'rows', batch })) {
        const message = `more than ${inboxEventsMax} events of ${vm} wait: send one batch at a time`;
        reject(new OriginError('inbox-full', message, { retryable: true }));
        return;
      }
      member.waiting.push({ resolve, reject });
    });
  }

  #put(vm: VmId, event: OriginEvent): boolean {
    const member = this.#members.get(vm);
    if (member === undefined || !this.#isRunning) return false;
    if (member.inbox.length >= inboxEventsMax) {
      if (event.kind !== 'plan') {
        member.origin.refuse(event);
        this.#deps.log.warn('origin-inbox-full', { vm, eventCount: member.inbox.length });
        return false;
      }
      member.inbox = member.inbox.filter(({ kind }) => kind !== 'plan');
    }
    wakeWatermark(member);
    member.inbox.push(event);
    this.#schedule();
    return true;
  }

  /** The commit runs once what is readable now has been read: that is the batch. */
  #schedule(): void {
    if (this.#isScheduled || !this.#isRunning) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#isRunning) this.#commit();
    });
  }

  #commit(): void {
    const nowUs = this.#deps.clock.wallUs();
    const due = [...this.#members.values()].filter((member) => this.#isDue(member, nowUs));
    if (due.length > 0) this.#commitMembers(due, nowUs);
    this.#setTimer(nowUs);
  }

  #isDue(member: Member, nowUs: number): boolean {
    if (member.inbox.length > 0) return true;
    if (member.nextStatusMs <= this.#deps.clock.monotonicMs()) return true;
    const dueUs = member.origin.engine.nextDueUs();
    return dueUs !== null && dueUs <= nowUs;
  }

  #commitMembers(members: readonly Member[], nowUs: number): void {
    const nowMs = this.#deps.clock.monotonicMs();
    this.#atCrashPoint('batch-taken');
    try {
      this.#writeMembers.immediate(members, nowUs, nowMs);
    } catch (cause) {
      this.#undo(members, cause);
      return;
    }
    this.#atCrashPoint('committed');
    if (members.some(({ origin }) => origin.hasFrames)) this.#deps.mark?.committed();
    for (const member of members) {
      const frames = member.origin.takeFrames();
      if (frames.length > 0) this.#deps.forwarder.forward(frames);
      if (member.nextStatusMs <= nowMs) {
        member.nextStatusMs = nowMs + this.#options.statusIntervalMs;
      }
    }
    this.#atCrashPoint('forwarded');
    for (const member of members) {
      const { waiting } = member;
      member.inbox = [];
      member.waiting = [];
      for (const { resolve } of waiting) resolve();
    }
    this.#atCrashPoint('acknowledged');
  }

  #write(members: readonly Member[], nowUs: number, nowMs: number): void {
    for (const member of members) {
      wakeWatermark(member);
      const isStatusDue = member.nextStatusMs <= nowMs;
      if (isStatusDue) member.inbox.push({ kind: 'status', vmState: member.vmState });
      member.origin.commitEvents(member.inbox, nowUs);
    }
    this.#atCrashPoint('frames-appended');
    for (const member of members) member.origin.writeState();
    if (members.some(({ origin }) => origin.hasFrames)) this.#deps.mark?.count();
    this.#atCrashPoint('state-written');
  }

  /** Nothing is durable: memory goes back to what is, the guests send again, and what the host measured is lost. */
  #undo(members: readonly Member[], cause: unknown): void {
    const message = cause instanceof Error ? cause.message : String(cause);
    this.#deps.log.error('origin-commit-failed', { reason: message, vmCount: members.length });
    const error = new OriginError('commit-failed', `the commit failed: ${message}`, {
      retryable: true,
      cause,
    });
    for (const member of members) {
      // Rows come again by themselves; a plan, a generation or a watermark must not be forgotten.
      member.inbox = member.inbox.filter(({ kind }) => keptKinds.has(kind));
      member.nextStatusMs = this.#deps.clock.monotonicMs() + this.#options.statusIntervalMs;
      const { kind } = member.origin.load();
      assert(kind === 'engine', 'what was written can be read');
      rejectAll(member, error);
    }
  }

  #setTimer(nowUs: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    const nowMs = this.#deps.clock.monotonicMs();
    let delayMs = Number.POSITIVE_INFINITY;
    for (const member of this.#members.values()) {
      delayMs = Math.min(delayMs, member.nextStatusMs - nowMs);
      const dueUs = member.origin.engine.nextDueUs();
      if (dueUs !== null) delayMs = Math.min(delayMs, (dueUs - nowUs) / 1_000);
      if (member.inbox.length > 0) delayMs = Math.min(delayMs, retryDelayMs);
    }
    if (delayMs === Number.POSITIVE_INFINITY || !this.#isRunning) return;
    const boundedMs = Math.min(timerMaxMs, Math.max(1, Math.ceil(delayMs)));
    this.#cancelTimer = this.#deps.clock.after(boundedMs, () => {
      this.#cancelTimer = null;
      this.#commit();
    });
  }
}

const keptKinds: ReadonlySet<OriginEvent['kind']> = new Set(['plan', 'generation', 'watermark']);

/** It came before what comes now. */
function wakeWatermark(member: Member): void {
  const guestTimeUs = member.restingWatermarkUs;
  if (guestTimeUs === null) return;
  member.restingWatermarkUs = null;
  member.inbox.push({ kind: 'watermark', guestTimeUs });
}

function rejectAll(member: Member, error: OriginError): void {
  const { waiting } = member;
  member.waiting = [];
  for (const { reject } of waiting) reject(error);
}

function stoppedError(): OriginError {
  return new OriginError('stopped', 'this VM is no longer collected here', { retryable: true });
}
