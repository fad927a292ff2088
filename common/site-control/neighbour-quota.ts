import { TokenBucket, type Quota } from '../runtime/token-bucket.ts';

/** How much one neighbour may ask, over all its connections. */
export interface RequestQuota {
  /** In the short run. */
  readonly quota: Quota;
  /** In the long run: each request that is answered is an entry of the audit log, which has a bound for all neighbours. */
  readonly requestsPerHourMax: number;
}

const hourMs = 3_600_000;

/** What a neighbour used up of its quota, in monotonic time, and what the audit log is to hear of requests beyond it. */
export class NeighbourQuota {
  readonly #bucket: TokenBucket;
  readonly #hourly: TokenBucket;
  #refusedCount = 0;
  #noteDueAtMs: number;

  constructor({ quota, requestsPerHourMax }: RequestQuota, nowMs: number) {
    this.#bucket = new TokenBucket(quota, nowMs);
    const hourly = { burst: requestsPerHourMax, perSecond: (requestsPerHourMax * 1_000) / hourMs };
    this.#hourly = new TokenBucket(hourly, nowMs);
    this.#noteDueAtMs = nowMs;
  }

  /** Whether a request may be answered now; if so it counts. */
  take(nowMs: number): boolean {
    return this.#bucket.take(nowMs) && this.#hourly.take(nowMs);
  }

  /** A request was refused, for this quota or for another bound. */
  countRefusal(): void {
    this.#refusedCount += 1;
  }

  /**
   * How many refusals one entry of the audit log is to tell of now; 0: none. The first is told at once, what follows once
   * an hour, with the next request.
   */
  takeNote(nowMs: number): number {
    if (this.#refusedCount === 0 || nowMs < this.#noteDueAtMs) return 0;
    const refusedCount = this.#refusedCount;
    this.#refusedCount = 0;
    this.#noteDueAtMs = nowMs + hourMs;
    return refusedCount;
  }
}
