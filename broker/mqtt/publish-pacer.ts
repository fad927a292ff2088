import type { Clock } from '../../common/runtime/clock.ts';
import { TokenBucket, type Quota } from '../../common/runtime/token-bucket.ts';

/** Messages: whoever has more to say shares a message for several frames, as it does on any slow connection. */
const messages: Quota = { burst: 256, perSecond: 2_000 };
const waitMs = 5;
/** However late the timer is: others have their turn in between. */
const messagesPerTurnMax = 16;

/**
 * Lets messages of one client pass at a bounded rate, in order. What is beyond it waits, and the broker reads no further from
 * the client meanwhile: so at most one piece of its connection waits here, and the rest at the client.
 */
export class PublishPacer {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #waiting: (() => void)[] = [];

  constructor(clock: Clock, quota: Quota = messages) {
    this.#clock = clock;
    this.#bucket = new TokenBucket(quota, clock.monotonicMs());
  }

  /** Runs `go` at once or later. */
  pass(go: () => void): void {
    if (this.#waiting.length === 0 && this.#bucket.take(this.#clock.monotonicMs())) {
      go();
      return;
    }
    this.#waiting.push(go);
    if (this.#waiting.length === 1) this.#goOnLater();
  }

  #goOnLater(): void {
    this.#clock.after(waitMs, () => {
      const nowMs = this.#clock.monotonicMs();
      const allowed = Math.max(0, Math.floor(this.#bucket.level(nowMs)));
      const passing = this.#waiting.splice(0, Math.min(allowed, messagesPerTurnMax));
      this.#bucket.charge(nowMs, passing.length);
      for (const go of passing) go();
      if (this.#waiting.length > 0) this.#goOnLater();
    });
  }
}
