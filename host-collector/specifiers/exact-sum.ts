import assert from 'node:assert';

/** From here on a partial sum could overflow, so such values are added up scaled down by `hugeScale`. */
const hugeFrom = 2 ** 900;
const hugeScale = 2 ** 100;

/** Serialized form: the partials of both accumulators. */
export interface ExactSumState {
  readonly partials: readonly number[];
  readonly huge: readonly number[];
}

/**
 * A sum without rounding error, whatever the count, the magnitudes and the order: Shewchuk's expansion ("Adaptive
 * Precision Floating-Point Arithmetic", 1997), as Python's math.fsum. Neumaier's and Welford's methods are cheaper by
 * some nanoseconds but depend on the order in their last digits, and late rows arrive in any order.
 *
 * Bound: at most about 40 partials, as they do not overlap within the range of a double.
 */
export class ExactSum {
  readonly #partials: number[];
  readonly #huge: number[];

  constructor(state: ExactSumState = { partials: [], huge: [] }) {
    this.#partials = [...state.partials];
    this.#huge = [...state.huge];
  }

  /** Adds one value; integers of 64 bits are added exactly too. */
  add(value: number | bigint): void {
    if (typeof value === 'bigint') {
      const high = Number(value);
      this.add(high);
      const low = Number(value - BigInt(high));
      if (low !== 0) this.add(low);
      return;
    }
    assert(Number.isFinite(value), 'only finite values are numbers here');
    if (Math.abs(value) >= hugeFrom) addExactly(this.#huge, value / hugeScale);
    else addExactly(this.#partials, value);
  }

  /** The sum divided by `count`, rounded twice at most. */
  mean(count: number): number {
    assert(count > 0);
    const mean = round(this.#partials) / count;
    const hugeSum = round(this.#huge);
    return hugeSum === 0 ? mean : (hugeSum / count) * hugeScale + mean;
  }

  state(): ExactSumState {
    return { partials: [...this.#partials], huge: [...this.#huge] };
  }
}

/** Adds `value` to a list of partials that do not overlap, ascending in magnitude. */
function addExactly(partials: number[], value: number): void {
  let carried = value;
  let keptCount = 0;
  for (const partial of partials) {
    const [large, small] =
      Math.abs(carried) < Math.abs(partial) ? [partial, carried] : [carried, partial];
    const high = large + small;
    const low = small - (high - large);
    if (low !== 0) {
      partials[keptCount] = low;
      keptCount += 1;
    }
    carried = high;
  }
  partials.length = keptCount;
  partials.push(carried);
}

/** The double nearest to the sum of the partials, half to even over all of them. */
function round(partials: readonly number[]): number {
  let index = partials.length - 1;
  let high = partials[index] ?? 0;
  let low = 0;
  while (index > 0) {
    index -= 1;
    const before = high;
    const partial = partials[index] ?? 0;
    high = before + partial;
    low = partial - (high - before);
    if (low !== 0) break;
  }
  const next = partials[index - 1];
  if (next !== undefined && ((low < 0 && next < 0) || (low > 0 && next > 0))) {
    const doubled = low * 2;
    const candidate = high + doubled;
    if (doubled === candidate - high) return candidate;
  }
  return high;
}
