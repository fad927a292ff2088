/** What the primary site received of one series of numbers 1, 2, 3, ..., in the order of arrival. */
export interface SeriesCount {
  readonly stored: number;
  /** Numbers that came again. */
  readonly twice: number;
  /** Numbers that came after a larger one. */
  readonly outOfOrder: number;
}

/** Checks one series as it arrives. */
export class SeriesCheck {
  readonly #seen = new Set<number>();
  #largest = 0;
  #twice = 0;
  #outOfOrder = 0;

  take(value: number): void {
    if (this.#seen.has(value)) {
      this.#twice += 1;
      return;
    }
    this.#seen.add(value);
    if (value < this.#largest) this.#outOfOrder += 1;
    else this.#largest = value;
  }

  get count(): SeriesCount {
    return { stored: this.#seen.size, twice: this.#twice, outOfOrder: this.#outOfOrder };
  }

  /** Of 1 to `sent`, those that never came. */
  lost(sent: number): number {
    let lost = 0;
    for (let value = 1; value <= sent; value += 1) if (!this.#seen.has(value)) lost += 1;
    return lost;
  }
}

/** How a run ended, over all series. */
export interface Verdict {
  /** Saves whose close returned. */
  readonly sent: number;
  readonly stored: number;
  readonly lost: number;
  readonly twice: number;
  readonly outOfOrder: number;
}

export function verdictOf(
  series: readonly { readonly sent: number; readonly check: SeriesCheck }[],
): Verdict {
  const sum = (pick: (each: (typeof series)[number]) => number): number =>
    series.reduce((total, each) => total + pick(each), 0);
  return {
    sent: sum(({ sent }) => sent),
    stored: sum(({ check }) => check.count.stored),
    lost: sum(({ sent, check }) => check.lost(sent)),
    twice: sum(({ check }) => check.count.twice),
    outOfOrder: sum(({ check }) => check.count.outOfOrder),
  };
}

/** Whether everything that was sent is there once and in its order. */
export function isFlawless({ sent, stored, lost, twice, outOfOrder }: Verdict): boolean {
  return sent > 0 && stored === sent && lost + twice + outOfOrder === 0;
}

/** `sent 1204, stored 1204, lost 0, twice 0, out of order 0` */
export function formatVerdict(verdict: Verdict): string {
  const { sent, stored, lost, twice, outOfOrder } = verdict;
  return [
    `sent ${sent}`,
    `stored ${stored}`,
    `lost ${lost}`,
    `twice ${twice}`,
    `out of order ${outOfOrder}`,
  ].join(', ');
}
