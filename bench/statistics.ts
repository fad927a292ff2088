/** The middle value; of an even count the mean of the middle two. NaN when there is none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  if (sorted.length % 2 === 1) return upper;
  return ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The smallest value that at least `ratio` of the values do not exceed (nearest rank); NaN when there is none. */
export function percentile(values: readonly number[], ratio: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  const rank = Math.max(1, Math.ceil(ratio * sorted.length));
  return sorted[rank - 1] ?? Number.NaN;
}

/**
 * The median over rounds of the ratio within each round. Both sides of a ratio were measured within seconds of each other,
 * so that a machine that slows down between rounds moves both. Figures are given by round; one that lacks the other is left out.
 */
export function medianRatio(
  numerators: ReadonlyMap<number, number>,
  denominators: ReadonlyMap<number, number>,
): number {
  return median(
    Array.from(numerators).flatMap(([round, numerator]) => {
      const denominator = denominators.get(round);
      return denominator === undefined ? [] : [numerator / denominator];
    }),
  );
}

/** Items in an order that begins one further in each round, so that none is always measured first. */
export function rotated<Item>(items: readonly Item[], round: number): readonly Item[] {
  const start = items.length === 0 ? 0 : round % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}
