import { TokenBucket, type Quota } from './token-bucket.ts';

/** Lines of one event at once, and in the long run. */
export const eventQuotas = {
  /** Warnings and errors: what a peer can make happen without end. */
  trouble: { burst: 20, perSecond: 0.2 },
  /** The life cycle. */
  progress: { burst: 100, perSecond: 5 },
} as const satisfies Readonly<Record<string, Quota>>;

/** Events that are told apart; all further ones share one state, as their names may be made up. */
const eventsMax = 1_024;
const otherEvents = '';

interface EventState {
  readonly bucket: TokenBucket;
  suppressedCount: number;
}

/**
 * Bounds how often each event is logged, so that what happens a few times is seen each time, and what a peer can make happen
 * without end costs a bounded number of lines. Events of different keys don't touch each other.
 */
export class EventLimiter {
  readonly #monotonicMs: () => number;
  readonly #states = new Map<string, EventState>();

  constructor(monotonicMs: () => number = () => performance.now()) {
    this.#monotonicMs = monotonicMs;
  }

  /** Undefined when the event is to be left out; else how many were since it was last admitted. */
  admit(key: string, quota: Quota): number | undefined {
    const nowMs = this.#monotonicMs();
    const state = this.#stateOf(key, quota, nowMs);
    if (!state.bucket.take(nowMs)) {
      state.suppressedCount += 1;
      return undefined;
    }
    const { suppressedCount } = state;
    state.suppressedCount = 0;
    return suppressedCount;
  }

  #stateOf(key: string, quota: Quota, nowMs: number): EventState {
    const kept = this.#states.has(key) || this.#states.size < eventsMax ? key : otherEvents;
    const state = this.#states.get(kept) ?? {
      bucket: new TokenBucket(quota, nowMs),
      suppressedCount: 0,
    };
    this.#states.set(kept, state);
    return state;
  }
}
