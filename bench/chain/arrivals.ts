/**
 * Numbered values, 1, 2, 3, ..., as they arrive at the primary site: each number's first arrival and what came again.
 * Times are milliseconds of one monotonic clock, that of the senders as well.
 */
export class Arrivals {
  readonly #atMs: (number | undefined)[] = [];
  readonly #order: number[] = [];
  #twice = 0;
  #newestAtMs = Number.NEGATIVE_INFINITY;

  take(sequence: number, atMs: number): void {
    if (this.#atMs[sequence - 1] === undefined) {
      this.#atMs[sequence - 1] = atMs;
      this.#order.push(sequence);
    } else {
      this.#twice += 1;
    }
    this.#newestAtMs = Math.max(this.#newestAtMs, atMs);
  }

  /** Numbers that came at least once. */
  get count(): number {
    return this.#order.length;
  }

  /** Arrivals of a number that had come before. */
  get twice(): number {
    return this.#twice;
  }

  /** When anything came last. */
  get newestAtMs(): number {
    return this.#newestAtMs;
  }

  /** Of the values that were sent, how many never came; NaN in `sentAtMs`: sending failed, and nothing is owed. */
  lost(sentAtMs: ArrayLike<number>): number {
    let lost = 0;
    for (let index = 0; index < sentAtMs.length; index += 1) {
      if (!isSent(sentAtMs[index])) continue;
      if (this.#atMs[index] === undefined) lost += 1;
    }
    return lost;
  }

  /** From sending to arrival of those values that were sent from `fromMs` to `untilMs` and came. */
  delaysMs(
    sentAtMs: ArrayLike<number>,
    fromMs = Number.NEGATIVE_INFINITY,
    untilMs = Number.POSITIVE_INFINITY,
  ): number[] {
    const delays: number[] = [];
    for (let index = 0; index < sentAtMs.length; index += 1) {
      const sentMs = sentAtMs[index];
      const cameMs = this.#atMs[index];
      if (sentMs === undefined || cameMs === undefined || !isSent(sentMs)) continue;
      if (sentMs >= fromMs && sentMs <= untilMs) delays.push(cameMs - sentMs);
    }
    return delays;
  }

  /** When the last of the values that were sent before `beforeMs` came; NaN when none did. */
  completeAtMs(sentAtMs: ArrayLike<number>, beforeMs: number): number {
    let lastMs = Number.NaN;
    for (let index = 0; index < sentAtMs.length; index += 1) {
      const sentMs = sentAtMs[index];
      const cameMs = this.#atMs[index];
      if (sentMs === undefined || cameMs === undefined || !(sentMs < beforeMs)) continue;
      if (!(cameMs <= lastMs)) lastMs = cameMs;
    }
    return lastMs;
  }

  /** Numbers that arrived for the first time after a larger one. */
  outOfOrder(): number {
    return outOfOrder(this.#order);
  }
}

function isSent(sentMs: number | undefined): boolean {
  return sentMs !== undefined && !Number.isNaN(sentMs);
}

/** How often a number stands behind a larger one. */
export function outOfOrder(sequences: Iterable<number>): number {
  let largest = Number.NEGATIVE_INFINITY;
  let count = 0;
  for (const sequence of sequences) {
    if (sequence < largest) count += 1;
    else largest = sequence;
  }
  return count;
}
