import { setTimeout as delay } from 'node:timers/promises';

/** Stops what it was returned for. Calling it twice is harmless. */
export type Cancel = () => void;

/**
 * Time as a dependency, so that tests advance it and durations survive a step of the wall clock.
 * Wall time stamps what happened; monotonic time measures how long something took.
 */
export interface Clock {
  /** Microseconds since the Unix epoch, a safe integer. Follows steps of the system clock. */
  wallUs(): number;
  /** Milliseconds since an arbitrary start; never goes back. May have a fraction. */
  monotonicMs(): number;
  /** Resolves after `durationMs`; rejects with the signal's reason when it is aborted first. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
  /** Runs `task` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, task: () => void): Cancel;
  /** Runs `task` every `intervalMs` until cancelled. The timer does not keep the process alive. */
  every(intervalMs: number, task: () => void): Cancel;
}

/** How far the extrapolated wall time may leave the system's before it is anchored anew. */
const anchorDriftMaxUs = 1_500;

/** The machine's clocks. Wall time has microsecond resolution: Date.now() alone has a thousandth of it. */
export class SystemClock implements Clock {
  #anchorWallUs = 0;
  #anchorMonotonicUs = 0;

  wallUs(): number {
    const monotonicUs = Math.floor(performance.now() * 1_000);
    const systemUs = Date.now() * 1_000;
    const extrapolatedUs = this.#anchorWallUs + (monotonicUs - this.#anchorMonotonicUs);
    // Date.now() truncates, so the true time lies in [systemUs, systemUs + 1000).
    if (Math.abs(extrapolatedUs - systemUs) > anchorDriftMaxUs) {
      this.#anchorWallUs = systemUs;
      this.#anchorMonotonicUs = monotonicUs;
      return systemUs;
    }
    return extrapolatedUs;
  }

  monotonicMs(): number {
    return performance.now();
  }

  async sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    await delay(durationMs, undefined, signal === undefined ? {} : { signal });
  }

  after(delayMs: number, task: () => void): Cancel {
    const timer = setTimeout(task, delayMs);
    timer.unref();
    return () => {
      clearTimeout(timer);
    };
  }

  every(intervalMs: number, task: () => void): Cancel {
    const timer = setInterval(task, intervalMs);
    timer.unref();
    return () => {
      clearInterval(timer);
    };
  }
}
