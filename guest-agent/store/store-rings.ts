import assert from 'node:assert';

import { ByteRing } from './byte-ring.ts';
import {
  decodeOutcome,
  decodeRequest,
  encodeOutcome,
  encodeRequest,
  outcomeBytes,
  requestBytesMax,
} from './request-codec.ts';
import type { StoreClient, StoreOutcome, StoreRequest } from './store-request.ts';

/** The memory that file system, store thread and main thread share; made once, passed to each thread. */
export interface StoreSharedMemory {
  readonly requests: SharedArrayBuffer;
  readonly outcomes: SharedArrayBuffer;
  /** Raised by whoever has something for the store thread, which sleeps on it. */
  readonly signal: SharedArrayBuffer;
  /** See {@link StoreProgress}. */
  readonly progress: SharedArrayBuffer;
}

/** Paths and fixed fields of one request. */
const requestOverheadBytes = 32_768;
const outcomesBytes = 2 ** 18;
const progressSlots = 8;

export function allocateStoreMemory(fileBytesMax: number): StoreSharedMemory {
  return {
    requests: ByteRing.allocate(fileBytesMax + requestOverheadBytes),
    outcomes: ByteRing.allocate(outcomesBytes),
    signal: new SharedArrayBuffer(8),
    progress: new SharedArrayBuffer(progressSlots * 8),
  };
}

/**
 * How long the store thread looks again before it sleeps. Saves of one writer follow each other faster than a sleeping
 * thread wakes on an idle processor; longer looking would take time from the applications.
 */
const spinMaxMs = 0.05;

/** The bell of the store thread. Rung after something was queued, it is never missed; a needless ring is harmless. */
export class StoreSignal {
  readonly #counter: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#counter = new Int32Array(buffer);
  }

  ring(): void {
    Atomics.add(this.#counter, 0, 1);
    Atomics.notify(this.#counter, 0);
  }

  /** Read before looking at the queues; {@link wait} then returns at once if it rang since. */
  count(): number {
    return Atomics.load(this.#counter, 0);
  }

  wait(count: number, timeoutMs: number): void {
    const spinUntilMs = performance.now() + Math.min(timeoutMs, spinMaxMs);
    do {
      if (this.count() !== count) return;
    } while (performance.now() < spinUntilMs);
    Atomics.wait(this.#counter, 0, count, timeoutMs);
  }
}

const roomWaitMs = 1_000;

/**
 * For so long after a save was taken, the store thread looks for the RELEASE that follows it every
 * {@link releaseLookIntervalMs} of its own accord; waking it would cost each save a second hand-over between threads.
 */
export const releaseLookMs = 2;
export const releaseLookIntervalMs = 0.25;

/** The file system's end: requests in, outcomes out. One thread uses it. */
export class StoreThreadClient implements StoreClient {
  readonly #requests: ByteRing;
  readonly #outcomes: ByteRing;
  readonly #signal: StoreSignal;
  /** Taken off the ring while waiting for room, so that the two rings can't wait for each other. */
  #early: StoreOutcome[] = [];
  #savedAtMs = Number.NEGATIVE_INFINITY;

  constructor(memory: StoreSharedMemory) {
    this.#requests = new ByteRing(memory.requests);
    this.#outcomes = new ByteRing(memory.outcomes);
    this.#signal = new StoreSignal(memory.signal);
  }

  submit(request: StoreRequest): void {
    this.#push(request);
    // A RELEASE follows its close at once, and the store thread looks for it: see releaseLookMs.
    if (request.kind === 'publish' && request.token === null && this.#hasJustSaved()) return;
    if (request.kind === 'save' || request.kind === 'append') this.#savedAtMs = performance.now();
    this.#signal.ring();
  }

  #hasJustSaved(): boolean {
    return performance.now() - this.#savedAtMs < releaseLookMs;
  }

  #push(request: StoreRequest): void {
    const byteCountMax = requestBytesMax(request);
    assert(byteCountMax <= this.#requests.recordBytesMax, 'larger than fileBytesMax');
    while (!this.#requests.tryPush(byteCountMax, (target) => encodeRequest(request, target))) {
      this.#takeOutcomes((outcome) => {
        this.#early.push(outcome);
      });
      this.#signal.ring();
      this.#requests.waitForRoom(roomWaitMs);
    }
  }

  drain(take: (outcome: StoreOutcome) => void): void {
    if (this.#early.length > 0) {
      const early = this.#early;
      this.#early = [];
      for (const outcome of early) take(outcome);
    }
    this.#takeOutcomes(take);
  }

  #takeOutcomes(take: (outcome: StoreOutcome) => void): void {
    while (
      this.#outcomes.tryPop((record) => {
        take(decodeOutcome(record));
      })
    );
  }
}

/** The store thread's end. */
export class StoreQueue {
  readonly #requests: ByteRing;
  readonly #outcomes: ByteRing;

  constructor(memory: StoreSharedMemory) {
    this.#requests = new ByteRing(memory.requests);
    this.#outcomes = new ByteRing(memory.outcomes);
  }

  get isEmpty(): boolean {
    return this.#requests.isEmpty;
  }

  /** Everything that is queued, up to `countMax` requests. */
  take(countMax: number): readonly StoreRequest[] {
    const batch: StoreRequest[] = [];
    const take = (record: Buffer): void => {
      batch.push(decodeRequest(record));
    };
    while (batch.length < countMax && this.#requests.tryPop(take));
    return batch;
  }

  /** Waits while the file system is slow to take outcomes: no reply may overtake its outcome. */
  push(outcome: StoreOutcome): void {
    while (!this.#outcomes.tryPush(outcomeBytes, (target) => encodeOutcome(outcome, target))) {
      this.#outcomes.waitForRoom(roomWaitMs);
    }
  }
}
