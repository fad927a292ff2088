import { compileDataPointPattern, type DataPoint } from '../../common/wire/data-point.ts';
import type { Delivery, Measurement } from '../../common/wire/delivery.ts';
import type { MonitoringSpecifier } from '../../common/wire/monitoring-specifier.ts';
import { boundToState, type RunState } from './engine-state.ts';

/** Takes deliveries in the order in which they leave. */
export type Emit = (delivery: Delivery) => void;

/** How far event time has got for the data points that a specifier covers. All times only rise. */
export interface Progress {
  /** Everything older has come, by watermark; -Infinity before the first. */
  readonly watermarkUs: number;
  /** Everything older counts as come: the watermark, or the host's time less latenessMaxMs. */
  readonly completeUs: number;
  /** The host's time. */
  readonly nowUs: number;
  readonly latenessUs: number;
}

/** What a run could not do as asked. */
export interface RunCounts {
  /** Measurements of windows that are no longer kept, or too far ahead to keep yet. */
  unplaced: number;
  /** Measurements of data points beyond `dataPointsMax`. */
  beyondDataPoints: number;
  /** Ticks measured before their time because too many waited. */
  earlyTicks: number;
}

/** One specifier in one of its forms: what it says from one boundary to the next. */
export interface RunIdentity {
  readonly specifier: MonitoringSpecifier;
  /** The descriptor's revision that brought this form. */
  readonly descriptorRevision: number;
  /** First event time that belongs to it; -Infinity: no bound. */
  readonly fromUs: number;
  /** Host time at which it was made. */
  readonly createdUs: number;
}

/**
 * The work of one specifier. Pure: what it emits follows from the calls and their order alone. Measurements of one row
 * share their time.
 */
export interface SpecifierRun {
  readonly identity: RunIdentity;
  /** First event time that belongs to the next form; Infinity while this is the one in force. */
  untilUs: number;
  readonly counts: RunCounts;
  /** True when a measurement leaves nothing behind, so that replaying it is not needed. */
  readonly isStateless: boolean;
  matches(dataPoint: DataPoint): boolean;
  take(measurements: readonly Measurement[], progress: Progress, emit: Emit): void;
  advance(progress: Progress, emit: Emit): void;
  /** The event time whose completeness makes `advance` do something next; Infinity: none. */
  nextDueUs(): number;
  /** The host time at which late rows are delivered at the latest; Infinity: none wait. */
  lateDueUs(progress: Progress): number;
  /** True once the run has ended and nothing of it can be revised. */
  isOver(progress: Progress): boolean;
  state(): RunState;
}

/** What every run begins with: new, or as its state says. */
export function beginRun(
  { specifier }: RunIdentity,
  state: RunState | undefined,
): Pick<SpecifierRun, 'counts' | 'matches' | 'untilUs'> {
  return {
    counts: { ...(state?.counts ?? { unplaced: 0, beyondDataPoints: 0, earlyTicks: 0 }) },
    matches: compileDataPointPattern(specifier.dataPoints),
    untilUs: state?.untilUs ?? Number.POSITIVE_INFINITY,
  };
}

/** The part of a run's state that all kinds have. */
export function commonState({ identity, untilUs, counts }: SpecifierRun): CommonRunState {
  const { specifier, descriptorRevision, fromUs, createdUs } = identity;
  return {
    specifier,
    descriptorRevision,
    fromUs: boundToState(fromUs),
    createdUs,
    untilUs: boundToState(untilUs),
    counts: { ...counts },
  };
}

type CommonRunState = Pick<
  RunState,
  'specifier' | 'descriptorRevision' | 'fromUs' | 'createdUs' | 'untilUs' | 'counts'
>;
