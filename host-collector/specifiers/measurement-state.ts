import type { Measurement } from '../../common/wire/delivery.ts';
import type { AggregateState } from './aggregate.ts';
import {
  numericFromState,
  valueFromState,
  valueToState,
  type AggregateJson,
  type JudgeJson,
  type MeasurementState,
  type NumericState,
} from './engine-state.ts';
import type { JudgeState } from './predicate-judge.ts';

/* The parts of an engine's state to JSON and back. */

export function measurementToState(measurement: Measurement): MeasurementState {
  const { dataPoint, timeUs, uncertaintyUs, value, held } = measurement;
  return [dataPoint, timeUs, uncertaintyUs, valueToState(value), held];
}

export function measurementFromState(state: MeasurementState): Measurement {
  const [dataPoint, timeUs, uncertaintyUs, value, held] = state;
  return { dataPoint, timeUs, uncertaintyUs, value: valueFromState(value), held };
}

export function judgeToState(state: JudgeState): JudgeJson {
  return { ...state, reference: valueToState(state.reference) };
}

export function judgeFromState(state: JudgeJson): JudgeState {
  return { ...state, reference: valueFromState(state.reference) };
}

export function aggregateToState(state: AggregateState): AggregateJson {
  return {
    ...state,
    extreme: state.extreme === null ? null : numericToState(state.extreme),
    sum:
      state.sum === null ? null : { partials: [...state.sum.partials], huge: [...state.sum.huge] },
    median:
      state.median === null
        ? null
        : {
            values: state.median.values.map((value) => numericToState(value)),
            buckets:
              state.median.buckets === null
                ? null
                : {
                    bits: state.median.buckets.bits,
                    counts: state.median.buckets.counts.map(([bucket, count]) => [bucket, count]),
                  },
          },
  };
}

export function aggregateFromState(state: AggregateJson): AggregateState {
  return {
    ...state,
    extreme: state.extreme === null ? null : numericFromState(state.extreme),
    median:
      state.median === null
        ? null
        : { ...state.median, values: state.median.values.map((value) => numericFromState(value)) },
  };
}

function numericToState(value: number | bigint): NumericState {
  return typeof value === 'bigint' ? { integer: value.toString() } : value;
}
