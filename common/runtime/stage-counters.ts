/**
 * What every stage of the data path counts since its process started, in items of the stage's own unit, which
 * docs/OPERATING.md lists. Each item that is accepted ends as one of the other three, so that at any time
 *
 *   accepted = forwarded + dropped + failed + in flight
 *
 * An item that comes again after a failure is a new one. What can't be counted in the unit (a message that can't be read, a
 * fetch that fails) is one item, accepted and failed.
 */
export interface StageCounts {
  /** Taken in. */
  readonly accepted: number;
  /** Handed on, and done with here. */
  readonly forwarded: number;
  /** Given up by rule: a bound, a duplicate, a refusal. What is lost by it is told elsewhere. */
  readonly dropped: number;
  /** Met an error. */
  readonly failed: number;
  /** Milliseconds between the newest item's own time and its leaving this stage; null before the first. */
  readonly lagMs: number | null;
}

/** Mutable counters of one stage; `snapshot` is what status reports show. */
export class StageCounters {
  accepted = 0;
  forwarded = 0;
  dropped = 0;
  failed = 0;
  lagMs: number | null = null;

  /** One item that is given up as soon as it came. */
  dropAtOnce(): void {
    this.accepted += 1;
    this.dropped += 1;
  }

  /** One item that fails as soon as it came. */
  failAtOnce(): void {
    this.accepted += 1;
    this.failed += 1;
  }

  snapshot(): StageCounts {
    return {
      accepted: this.accepted,
      forwarded: this.forwarded,
      dropped: this.dropped,
      failed: this.failed,
      lagMs: this.lagMs,
    };
  }
}
