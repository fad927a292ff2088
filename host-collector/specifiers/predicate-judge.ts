import type { PredicateState } from '../../common/wire/delivery.ts';
import type { Predicate } from '../../common/wire/monitoring-specifier.ts';
import type { Value } from '../../common/wire/value.ts';
import { isNumeric } from './aggregate.ts';

/** What a predicate remembers of one data point; durable, so that a restart repeats and forgets no edge. */
export interface JudgeState {
  /** Time of the newest value judged; null before the first. */
  readonly newestUs: number | null;
  /** The condition counts: it held for the minimum duration and has not ended. */
  readonly isInside: boolean;
  /** Since when the condition holds without interruption; null while it does not. */
  readonly holdsSinceUs: number | null;
  /** changed-by: the value delivered last. */
  readonly reference: Value;
}

export const judgeStart: JudgeState = {
  newestUs: null,
  isInside: false,
  holdsSinceUs: null,
  reference: null,
};

export interface Verdict {
  /** Why the value is delivered; null when it is not. */
  readonly predicateState: PredicateState | null;
  readonly next: JudgeState;
}

/**
 * Judges the next value of a data point.
 *
 *              condition holds for minimumDurationMs: entering
 *     outside ------------------------------------------------> inside --+ level: inside
 *        ^                                                        |  ^---+
 *        +---- value back beyond threshold and hysteresis: leaving+
 *
 * `level` delivers entering and inside; `edge` the first value (initial), entering and leaving. A value older than the
 * newest judged one moves nothing: under `level` it is delivered when it meets the bare condition, under `edge` not.
 * A value that is no number can't meet a threshold: it is not delivered and moves nothing.
 */
export function judge(
  predicate: Predicate,
  state: JudgeState,
  value: Value,
  timeUs: number,
): Verdict {
  if (predicate.condition === 'changed-by') return judgeChange(predicate, state, value, timeUs);
  if (!isNumeric(value)) return { predicateState: null, next: state };
  if (state.newestUs !== null && timeUs < state.newestUs) {
    const delivers = predicate.kind === 'level' && meets(predicate, value, 0);
    return { predicateState: delivers ? 'inside' : null, next: state };
  }
  // While inside, the hysteresis moves the threshold back: the condition goes on until the value is beyond that.
  const holds = meets(predicate, value, state.isInside ? predicate.hysteresis : 0);
  const holdsSinceUs = holds ? (state.holdsSinceUs ?? timeUs) : null;
  const isInside =
    holdsSinceUs !== null &&
    (state.isInside || timeUs - holdsSinceUs >= predicate.minimumDurationMs * 1_000);
  const next: JudgeState = { newestUs: timeUs, isInside, holdsSinceUs, reference: null };
  return { predicateState: deliveredState(predicate, state, isInside), next };
}

type Threshold = Exclude<Predicate, { condition: 'changed-by' }>;

function deliveredState(
  predicate: Threshold,
  before: JudgeState,
  isInside: boolean,
): PredicateState | null {
  if (predicate.kind === 'level') {
    if (!isInside) return null;
    return before.isInside ? 'inside' : 'entering';
  }
  if (before.newestUs === null) return 'initial';
  if (before.isInside === isInside) return null;
  const edge = isInside ? 'entering' : 'leaving';
  return predicate.edges === 'both' || predicate.edges === edge ? edge : null;
}

/** Strict at the threshold; `slack` widens the range that counts as meeting it. */
function meets(predicate: Threshold, value: number | bigint, slack: number): boolean {
  if (predicate.condition === 'below') return value < predicate.threshold + slack;
  if (predicate.condition === 'above') return value > predicate.threshold - slack;
  return value < predicate.lower + slack || value > predicate.upper - slack;
}

type Change = Extract<Predicate, { condition: 'changed-by' }>;

/** The first value is the initial state; then each that differs enough from the last delivered one. */
function judgeChange(predicate: Change, state: JudgeState, value: Value, timeUs: number): Verdict {
  if (state.newestUs === null) {
    return {
      predicateState: 'initial',
      next: { newestUs: timeUs, isInside: false, holdsSinceUs: null, reference: value },
    };
  }
  if (timeUs < state.newestUs) return { predicateState: null, next: state };
  if (!differs(state.reference, value, predicate.delta)) {
    return { predicateState: null, next: { ...state, newestUs: timeUs, holdsSinceUs: null } };
  }
  const holdsSinceUs = state.holdsSinceUs ?? timeUs;
  if (timeUs - holdsSinceUs < predicate.minimumDurationMs * 1_000) {
    return { predicateState: null, next: { ...state, newestUs: timeUs, holdsSinceUs } };
  }
  return {
    predicateState: 'entering',
    next: { newestUs: timeUs, isInside: false, holdsSinceUs: null, reference: value },
  };
}

function differs(reference: Value, value: Value, delta: number): boolean {
  if (isNumeric(reference) && isNumeric(value)) {
    if (reference === value) return false;
    if (typeof reference === typeof value && typeof value === 'bigint') {
      const distance = BigInt(reference) - value;
      return (distance < 0n ? -distance : distance) >= delta;
    }
    return Math.abs(Number(reference) - Number(value)) >= delta;
  }
  if (reference instanceof Uint8Array && value instanceof Uint8Array) {
    return Buffer.compare(reference, value) !== 0;
  }
  return reference !== value;
}
