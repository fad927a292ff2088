import type { DataPoint } from './data-point.ts';
import type { Format } from './monitoring-specifier.ts';
import type { Value } from './value.ts';

/** One value of one data point at one time. */
export interface Measurement {
  readonly dataPoint: DataPoint;
  /** The guest's time of the save, corrected by the clock offset then in force; µs of the Unix epoch. */
  readonly timeUs: number;
  /** Half the width of the interval that the true time lies in; 0 for what the host measured itself. */
  readonly uncertaintyUs: number;
  readonly value: Value;
  /** True when no new value came and the last one is repeated. */
  readonly held: boolean;
}

/** A half-open range of event time, in ms of the epoch. */
export interface Window {
  readonly startMs: number;
  readonly endMs: number;
}

/** Why a predicate let this through; absent where the specifier has none. */
export type PredicateState = 'initial' | 'entering' | 'inside' | 'leaving';

/** What a specifier sends at one delivery time: all values. */
export interface RawDelivery {
  readonly kind: 'raw';
  readonly specifierId: string;
  /** The descriptor's revision that the specifier had. */
  readonly descriptorRevision: number;
  /** null with a delivery interval of 0. Wider than the interval: a run of empty windows in one. */
  readonly window: Window | null;
  /**
   * 0 for the first delivery of a window, then 1, 2, ... each time late rows change it. Deliveries of one window with
   * the same revision add up (a large window comes in parts); a higher revision replaces the lower ones.
   */
  readonly revision: number;
  readonly predicateState: PredicateState | null;
  /** Ordered by time, then data point. Empty: the window had none. */
  readonly measurements: readonly Measurement[];
}

/** What a specifier sends at one delivery time: one number for a window. */
export interface ProcessedDelivery {
  readonly kind: 'processed';
  readonly specifierId: string;
  readonly descriptorRevision: number;
  readonly dataPoint: DataPoint;
  /** null with a delivery interval of 0 (then count is 1). Wider than the interval: a run of empty windows in one. */
  readonly window: Window | null;
  readonly revision: number;
  readonly predicateState: PredicateState | null;
  readonly format: Exclude<Format, 'raw'>;
  /** null when count is 0. Integers outside the safe range become the nearest number. */
  readonly value: number | null;
  /** Time of the newest measurement that took part; the window's end when none did. */
  readonly timeUs: number;
  /** Measurements that took part. */
  readonly count: number;
  /** Measurements that are not numbers. */
  readonly skippedCount: number;
  /** How many of `count` repeat an older value; absent: none. */
  readonly heldCount?: number;
  /** Bound of the relative error of a median over more values than are kept exactly; absent: exact. */
  readonly relativeErrorMax?: number;
}

export type Delivery = RawDelivery | ProcessedDelivery;
