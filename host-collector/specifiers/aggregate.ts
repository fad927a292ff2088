import type { Format } from '../../common/wire/monitoring-specifier.ts';
import type { Value } from '../../common/wire/value.ts';
import { ExactSum, type ExactSumState } from './exact-sum.ts';
import { MedianValues, type MedianState } from './median-values.ts';

export type NumericFormat = Exclude<Format, 'raw'>;

export interface AggregateState {
  readonly count: number;
  readonly skippedCount: number;
  readonly heldCount: number;
  readonly newestUs: number | null;
  readonly extreme: number | bigint | null;
  readonly sum: ExactSumState | null;
  readonly median: MedianState | null;
}

/** What a processed delivery says of its values. */
export interface AggregateResult {
  readonly value: number | bigint | null;
  readonly count: number;
  readonly skippedCount: number;
  readonly heldCount: number;
  readonly newestUs: number | null;
  readonly relativeErrorMax: number;
}

const emptyState: AggregateState = {
  count: 0,
  skippedCount: 0,
  heldCount: 0,
  newestUs: null,
  extreme: null,
  sum: null,
  median: null,
};

/**
 * One numeric function over the measurements of one data point in one window. The result depends on the measurements
 * alone, not on their order. What is no number (text, empty fields) is skipped and counted.
 */
export class Aggregate {
  readonly #format: NumericFormat;
  #count: number;
  #skippedCount: number;
  #heldCount: number;
  #newestUs: number | null;
  #extreme: number | bigint | null;
  readonly #sum: ExactSum | null;
  readonly #median: MedianValues | null;

  constructor(format: NumericFormat, state: AggregateState = emptyState) {
    this.#format = format;
    this.#count = state.count;
    this.#skippedCount = state.skippedCount;
    this.#heldCount = state.heldCount;
    this.#newestUs = state.newestUs;
    this.#extreme = state.extreme;
    this.#sum = format === 'mean' ? new ExactSum(state.sum ?? undefined) : null;
    this.#median = format === 'median' ? new MedianValues(state.median ?? undefined) : null;
  }

  add(value: Value, timeUs: number, held: boolean): void {
    if (!isNumeric(value)) {
      this.#skippedCount += 1;
      return;
    }
    this.#count += 1;
    if (held) this.#heldCount += 1;
    if (this.#newestUs === null || timeUs > this.#newestUs) this.#newestUs = timeUs;
    switch (this.#format) {
      case 'min':
        if (this.#extreme === null || value < this.#extreme) this.#extreme = value;
        break;
      case 'max':
        if (this.#extreme === null || value > this.#extreme) this.#extreme = value;
        break;
      case 'mean':
        this.#sum?.add(value);
        break;
      case 'median':
        this.#median?.add(value);
        break;
    }
  }

  result(): AggregateResult {
    return {
      value: this.#value(),
      count: this.#count,
      skippedCount: this.#skippedCount,
      heldCount: this.#heldCount,
      newestUs: this.#newestUs,
      relativeErrorMax: this.#median?.relativeErrorMax ?? 0,
    };
  }

  state(): AggregateState {
    return {
      count: this.#count,
      skippedCount: this.#skippedCount,
      heldCount: this.#heldCount,
      newestUs: this.#newestUs,
      extreme: this.#extreme,
      sum: this.#sum?.state() ?? null,
      median: this.#median?.state() ?? null,
    };
  }

  #value(): number | bigint | null {
    if (this.#count === 0) return null;
    if (this.#sum !== null) return this.#sum.mean(this.#count);
    return this.#median === null ? this.#extreme : this.#median.median();
  }
}

/** What numeric functions and thresholds work on: finite numbers and 64-bit integers. */
export function isNumeric(value: Value): value is number | bigint {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isFinite(value));
}
