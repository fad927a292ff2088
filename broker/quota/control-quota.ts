import type { Clock } from '../../common/runtime/clock.ts';
import { TokenBucket, type Quota } from '../../common/runtime/token-bucket.ts';

/** Bytes that a producer says: heads and key statements of a site of thousands of VMs, all moving, are within it. */
export const producerSays: Quota = { burst: 64 * 1_024 * 1_024, perSecond: 4 * 1_024 * 1_024 };
/** Bytes that a consumer says: thousands of queries a second, each of which reads the log. */
export const consumerSays: Quota = { burst: 8 * 1_024 * 1_024, perSecond: 4 * 1_024 * 1_024 };
/** A small message costs as much time as this many bytes of a large one. */
const messageBytesMin = 1_024;

/** Control messages of one neighbour that are read; any further one is as if it was lost on the way. */
export class ControlQuota {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;

  constructor(clock: Clock, quota: Quota) {
    this.#clock = clock;
    this.#bucket = new TokenBucket(quota, clock.monotonicMs());
  }

  take(payload: Uint8Array): boolean {
    const bytes = Math.max(messageBytesMin, payload.length);
    return this.#bucket.take(this.#clock.monotonicMs(), bytes);
  }
}
