import type { Cancel, Clock } from '../../common/runtime/clock.ts';

interface Timer {
  dueMs: number;
  readonly intervalMs: number | null;
  readonly run: () => void;
}

/** A clock that stands still until a test advances it. Wall and monotonic time can be moved apart. */
export class ManualClock implements Clock {
  #monotonicMs = 0;
  #wallOffsetUs: number;
  readonly #timers = new Set<Timer>();

  constructor(wallUs = 1_700_000_000_000_000) {
    this.#wallOffsetUs = wallUs;
  }

  wallUs(): number {
    return this.#wallOffsetUs + Math.round(this.#monotonicMs * 1_000);
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  /** Moves the wall clock alone, as an operator or NTP does. */
  stepWall(deltaUs: number): void {
    this.#wallOffsetUs += deltaUs;
  }

  /** Moves time on and runs what falls due, in order, letting promises settle in between. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#monotonicMs + durationMs;
    for (;;) {
      await settlePromises();
      const next = [...this.#timers]
        .filter((timer) => timer.dueMs <= endMs)
        .toSorted((left, right) => left.dueMs - right.dueMs)[0];
      if (next === undefined) break;
      this.#monotonicMs = Math.max(this.#monotonicMs, next.dueMs);
      if (next.intervalMs === null) this.#timers.delete(next);
      else next.dueMs += next.intervalMs;
      next.run();
    }
    this.#monotonicMs = endMs;
    await settlePromises();
  }

  /** Moves time on as a machine that was suspended finds it: what fell due runs once, with the next advance. */
  sleepThrough(durationMs: number): void {
    this.#monotonicMs += durationMs;
    for (const timer of this.#timers) {
      if (timer.intervalMs !== null) timer.dueMs = Math.max(timer.dueMs, this.#monotonicMs);
    }
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const cancel = this.after(durationMs, resolve);
      signal?.addEventListener('abort', () => {
        cancel();
        reject(signal.reason);
      });
    });
  }

  after(delayMs: number, run: () => void): Cancel {
    return this.#add({ dueMs: this.#monotonicMs + delayMs, intervalMs: null, run });
  }

  every(intervalMs: number, run: () => void): Cancel {
    return this.#add({ dueMs: this.#monotonicMs + intervalMs, intervalMs, run });
  }

  #add(timer: Timer): Cancel {
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
    };
  }
}

const settleTurns = 10;

async function settlePromises(): Promise<void> {
  for (let turn = 0; turn < settleTurns; turn += 1) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}
