import assert from 'node:assert';

/** Up to this many values of a window the median is exact; it also bounds the distinct values kept beyond. */
export const exactMedianValuesMax = 65_536;

/** Significant bits kept of each value beyond that bound, and the fewest that remain. */
const bucketBitsMax = 20;
const bucketBitsMin = 6;

export interface MedianState {
  readonly values: readonly (number | bigint)[];
  /** Present beyond the exact bound: value cut to `bits` significant bits, and how many had it. */
  readonly buckets: {
    readonly bits: number;
    readonly counts: readonly (readonly [number, number])[];
  } | null;
}

/**
 * The values of one window, for their median. Exact up to `exactMedianValuesMax` values. Beyond that each value is
 * kept to 20 significant bits, and to one bit fewer whenever more than `exactMedianValuesMax` differ, so that memory
 * is bounded and the relative error is at most `relativeErrorMax`. What comes out depends on the values alone, not on
 * their order.
 */
export class MedianValues {
  #values: (number | bigint)[];
  #bits: number;
  #counts: Map<number, number> | null;
  readonly #exactValuesMax: number;

  constructor(
    state: MedianState = { values: [], buckets: null },
    exactValuesMax: number = exactMedianValuesMax,
  ) {
    this.#values = [...state.values];
    this.#bits = state.buckets?.bits ?? bucketBitsMax;
    this.#counts = state.buckets === null ? null : new Map(state.buckets.counts);
    this.#exactValuesMax = exactValuesMax;
  }

  add(value: number | bigint): void {
    if (this.#counts !== null) {
      this.#count(this.#counts, Number(value), 1);
      return;
    }
    this.#values.push(value);
    if (this.#values.length <= this.#exactValuesMax) return;
    this.#counts = new Map();
    for (const kept of this.#values) this.#count(this.#counts, Number(kept), 1);
    this.#values = [];
  }

  /** Bound of |median - true median| / |true median|, of middle values of one sign; 0: exact. */
  get relativeErrorMax(): number {
    return this.#counts === null ? 0 : 2 ** -this.#bits;
  }

  /** The middle value, of an even count the mean of the middle two; null without values. */
  median(): number | bigint | null {
    if (this.#counts !== null) return this.#bucketMedian(this.#counts);
    const count = this.#values.length;
    if (count === 0) return null;
    const sorted = this.#values.toSorted(compare);
    const upper = sorted[count >> 1];
    assert(upper !== undefined);
    if (count % 2 === 1) return upper;
    const lower = sorted[(count >> 1) - 1];
    assert(lower !== undefined);
    return meanOfTwo(lower, upper);
  }

  state(): MedianState {
    const buckets =
      this.#counts === null ? null : { bits: this.#bits, counts: [...this.#counts.entries()] };
    return { values: [...this.#values], buckets };
  }

  #count(counts: Map<number, number>, value: number, times: number): void {
    const bucket = cutToBits(value, this.#bits);
    counts.set(bucket, (counts.get(bucket) ?? 0) + times);
    while (counts.size > this.#exactValuesMax && this.#bits > bucketBitsMin) this.#coarsen(counts);
  }

  #coarsen(counts: Map<number, number>): void {
    this.#bits -= 1;
    const finer = [...counts.entries()];
    counts.clear();
    for (const [bucket, times] of finer) {
      const coarser = cutToBits(bucket, this.#bits);
      counts.set(coarser, (counts.get(coarser) ?? 0) + times);
    }
  }

  #bucketMedian(counts: ReadonlyMap<number, number>): number {
    const sorted = [...counts.entries()].toSorted(([left], [right]) => left - right);
    let total = 0;
    for (const [, times] of sorted) total += times;
    const lowerRank = (total - 1) >> 1;
    const upperRank = total >> 1;
    let seen = 0;
    let lower: number | null = null;
    for (const [bucket, times] of sorted) {
      seen += times;
      if (lower === null && seen > lowerRank) lower = middleOf(bucket, this.#bits);
      if (lower !== null && seen > upperRank) {
        return Number(meanOfTwo(lower, middleOf(bucket, this.#bits)));
      }
    }
    throw new assert.AssertionError({ message: 'a bucket holds the middle value' });
  }
}

/** Orders numbers and 64-bit integers by exact value. */
function compare(left: number | bigint, right: number | bigint): number {
  if (left < right) return -1;
  return left > right ? 1 : 0;
}

/** (a + b) / 2 without overflow; integers outside the safe range are added exactly first. */
function meanOfTwo(lower: number | bigint, upper: number | bigint): number | bigint {
  if (lower === upper) return upper;
  if (Number.isInteger(Number(lower)) && Number.isInteger(Number(upper))) {
    if (typeof lower === 'bigint' || typeof upper === 'bigint') {
      const sum = BigInt(lower) + BigInt(upper);
      const half = sum / 2n;
      // Beside a huge float the mean may be no 64-bit integer any more, and only those are kept as integers.
      const isKept = BigInt.asIntN(64, half) === half && !Number.isSafeInteger(Number(half));
      return sum % 2n === 0n && isKept ? half : Number(sum) / 2;
    }
  }
  const sum = Number(lower) + Number(upper);
  return Number.isFinite(sum) ? sum / 2 : Number(lower) / 2 + Number(upper) / 2;
}

/** `value` cut towards zero to `bits` significant bits; cutting twice is cutting once to the fewer. */
function cutToBits(value: number, bits: number): number {
  if (value === 0) return 0;
  const unit = unitOf(value, bits);
  return unit === 0 ? value : Math.trunc(value / unit) * unit;
}

function middleOf(bucket: number, bits: number): number {
  return bucket === 0 ? 0 : bucket + Math.sign(bucket) * (unitOf(bucket, bits) / 2);
}

/** The weight of the last of `bits` significant bits; exact, read from the exponent of the double. */
function unitOf(value: number, bits: number): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  const exponent = ((view.getUint16(0) >> 4) & 0x7ff) - 1023;
  return 2 ** (exponent - bits + 1);
}
