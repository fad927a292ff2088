/** What every stage of the data path counts since it started. */
export interface StageCounts {
  readonly accepted: number;
  readonly forwarded: number;
  readonly dropped: number;
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
