import { TokenBucket } from './token-bucket.ts';

/** Lines of one event at once, and then in each second. */
const quota = { burst: 100, perSecond: 5 };
/** Events that are told apart; when there are more, all begin anew. */
const eventsMax = 1_024;

interface EventState {
  readonly bucket: TokenBucket;
  suppressedCount: number;
}

/**
 * Bounds how often each event is logged: 100 at once, 5 a second for ever, so that what happens a few times is seen each
 * time and what a peer can make happen without end costs a bounded number of lines. Events of different keys don't touch
 * each other.
 */
export class EventLimiter {
  readonly #monotonicMs: () => number;
  readonly #states = new Map<string, EventState>();

  constructor(monotonicMs: () => number = () => performance.now()) {
    this.#monotonicMs = monotonicMs;
  }

  /** Undefined when the event is to be left out; else how many were since it was last admitted. */
  admit(key: string): number | undefined {
    const nowMs = this.#monotonicMs();
    const state = this.#stateOf(key, nowMs);
    if (!state.bucket.take(nowMs)) {
      state.suppressedCount += 1;
      return undefined;
    }
    const { suppressedCount } = state;
    state.suppressedCount = 0;
    return suppressedCount;
  }

  #stateOf(key: string, nowMs: number): EventState {
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    if (this.#states.size >= eventsMax) this.#states.clear();
    const state = { bucket: new TokenBucket(quota, nowMs), suppressedCount: 0 };
    this.#states.set(key, state);
    return state;
  }
}
