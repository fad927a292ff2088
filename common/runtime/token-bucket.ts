/** How much may happen, in units of the user's: `burst` at once, `perSecond` in the long run. */
export interface Quota {
  readonly burst: number;
  readonly perSecond: number;
}

/** A quota's state, in monotonic time. */
export class TokenBucket {
  readonly quota: Quota;
  #tokens: number;
  #filledAtMs: number;

  constructor(quota: Quota, nowMs: number) {
    this.quota = quota;
    this.#tokens = quota.burst;
    this.#filledAtMs = nowMs;
  }

  /** What may happen now at most; below zero after more was charged than there was. */
  level(nowMs: number): number {
    const { burst, perSecond } = this.quota;
    const earned = ((nowMs - this.#filledAtMs) / 1_000) * perSecond;
    this.#tokens = Math.min(burst, this.#tokens + earned);
    this.#filledAtMs = nowMs;
    return this.#tokens;
  }

  /** Whether `count` may happen now; if so it counts. */
  take(nowMs: number, count = 1): boolean {
    if (this.level(nowMs) < count) return false;
    this.#tokens -= count;
    return true;
  }

  /** Counts what has happened anyway; negative: what did not happen after all. Debt ends at one `burst`. */
  charge(nowMs: number, count: number): void {
    const { burst } = this.quota;
    this.#tokens = Math.max(-burst, Math.min(burst, this.level(nowMs) - count));
  }
}
