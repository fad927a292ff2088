/** Bytes of frames, encoded: `burstBytes` at once, `bytesPerSecond` in the long run. */
export interface ByteQuota {
  readonly bytesPerSecond: number;
  readonly burstBytes: number;
}

/** Between two looks at the clock usage only grows, which errs on the safe side. The more users, the less often. */
const advanceIntervalMsMin = 5;
const usersPerMs = 100;

/**
 * One byte quota that several users share so that none of them can use it up. What a user has used drains at its fair part of
 * the rate (a fluid model of processor sharing, in virtual time: Parekh and Gallager, 1993). It may have as much undrained as the
 * quota has free, so n users that take all they can leave one (n+1)th of the burst to whoever comes then (dynamic
 * thresholds: Choudhury and Hahne, 1998).
 *
 *   burst  |-- user 1 --|-- user 2 --|-- free: as much as the largest user has --|
 */
export class FairShare {
  readonly #quota: ByteQuota;
  /** Of users with undrained bytes: when, in virtual bytes, all is drained. */
  readonly #drainedAt = new Map<string, number>();
  #virtualBytes = 0;
  #usedBytes = 0;
  #advancedAtMs: number;

  constructor(quota: ByteQuota, nowMs: number) {
    this.#quota = quota;
    this.#advancedAtMs = nowMs;
  }

  /** Bytes that `user` may use now; below one when none. */
  room(user: string, nowMs: number): number {
    this.#advance(nowMs);
    return this.#quota.burstBytes - this.#usedBytes - this.#usedBy(user);
  }

  /** Counts bytes, which may be more than there is room for; negative: that were not used after all. */
  charge(user: string, bytes: number): void {
    const before = this.#usedBy(user);
    // Debt ends, so that whoever floods is heard again soon after.
    const after = Math.max(0, Math.min(before + bytes, this.#quota.burstBytes));
    this.#usedBytes += after - before;
    if (after === 0) this.#drainedAt.delete(user);
    else this.#drainedAt.set(user, this.#virtualBytes + after);
  }

  #usedBy(user: string): number {
    const drainedAt = this.#drainedAt.get(user);
    return drainedAt === undefined ? 0 : Math.max(0, drainedAt - this.#virtualBytes);
  }

  #advance(nowMs: number): void {
    const elapsedMs = nowMs - this.#advancedAtMs;
    if (elapsedMs < Math.max(advanceIntervalMsMin, this.#drainedAt.size / usersPerMs)) return;
    this.#advancedAtMs = nowMs;
    this.#drain((elapsedMs / 1_000) * this.#quota.bytesPerSecond);
  }

  /** Users that are drained before the others leave their part to these. */
  #drain(bytes: number): void {
    let left = bytes;
    const soonest = [...this.#drainedAt].toSorted(([, one], [, other]) => one - other);
    for (const [index, [user, drainedAt]] of soonest.entries()) {
      const userCount = soonest.length - index;
      const needed = (drainedAt - this.#virtualBytes) * userCount;
      if (needed > left) {
        this.#virtualBytes += left / userCount;
        left = 0;
        break;
      }
      left -= needed;
      this.#virtualBytes = drainedAt;
      this.#drainedAt.delete(user);
    }
    const used = [...this.#drainedAt.values()];
    this.#usedBytes = used.reduce((sum, drainedAt) => sum + drainedAt - this.#virtualBytes, 0);
  }
}
