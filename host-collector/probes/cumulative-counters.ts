/** Sources followed at once, devices of a host; further ones are left out. */
const sourcesMax = 4_096;

/**
 * Sums counters of several sources (disks, interfaces) into one that never falls: a source that begins again at zero
 * adds what it has counted since, and one that goes away keeps what it had.
 */
export class CumulativeCounters {
  readonly #lastBySource = new Map<string, number>();
  #total = 0;

  /** Takes the present values of all sources and returns the sum. */
  update(values: Iterable<readonly [source: string, value: number]>): number {
    for (const [source, value] of values) {
      const last = this.#lastBySource.get(source) ?? 0;
      if (!this.#lastBySource.has(source) && this.#lastBySource.size >= sourcesMax) continue;
      this.#total += value >= last ? value - last : value;
      this.#lastBySource.set(source, value);
    }
    return this.#total;
  }
}
