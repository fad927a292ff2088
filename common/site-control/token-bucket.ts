/** How often something may happen: `burst` at once, `perSecond` in the long run. */
export interface Quota {
  readonly burst: number;
  readonly perSecond: number;
}

/** A quota's state, in monotonic time. */
export class TokenBucket {
  readonly #quota: Quota;
  #tokens: number;
  #filledAtMs: number;

  constructor(quota: Quota, nowMs: number) {
    this.#quota = quota;
    this.#tokens = quota.burst;
    this.#filledAtMs = nowMs;
  }

  /** Whether it may happen now; if so it counts. */
  take(nowMs: number): boolean {
    const { burst, perSecond } = this.#quota;
    const earned = ((nowMs - this.#filledAtMs) / 1_000) * perSecond;
    this.#tokens = Math.min(burst, this.#tokens + earned);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
