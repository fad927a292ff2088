import type { DataPoint } from '../../common/wire/data-point.ts';
import type { Measurement, PredicateState } from '../../common/wire/delivery.ts';
import {
  atOnce,
  byTimeThenDataPoint,
  processedDelivery,
  rawDelivery,
  singleResult,
} from './deliveries.ts';
import type { EngineBounds } from './engine-bounds.ts';
import { boundToState, type ImmediateRunState } from './engine-state.ts';
import {
  judgeFromState,
  judgeToState,
  measurementFromState,
  measurementToState,
} from './measurement-state.ts';
import { judge, judgeStart, type JudgeState } from './predicate-judge.ts';
import {
  beginRun,
  commonState,
  type Emit,
  type Progress,
  type RunCounts,
  type RunIdentity,
  type SpecifierRun,
} from './specifier-run.ts';
import { ceilToGrid } from './time-grid.ts';

interface Point {
  /** The newest row measured, not held; what later ticks repeat. */
  last: Measurement | null;
  judge: JudgeState | null;
}

/**
 * A specifier with a delivery interval of 0: what is measured leaves at once, each row as one delivery. With a
 * monitoring interval it is measured at the ticks, as soon as everything at or before a tick has come, and all data
 * points of a tick leave together.
 */
export class ImmediateRun implements SpecifierRun {
  readonly identity: RunIdentity;
  readonly counts: RunCounts;
  readonly matches: (dataPoint: DataPoint) => boolean;
  readonly isStateless: boolean;
  untilUs: number;
  readonly #bounds: EngineBounds;
  readonly #intervalUs: number;
  readonly #points: Map<DataPoint, Point>;
  /** Newest rows by the tick that will measure them. */
  readonly #pending: Map<number, Map<DataPoint, Measurement>>;
  #tickDoneUs: number;

  constructor(identity: RunIdentity, bounds: EngineBounds, state?: ImmediateRunState) {
    const { specifier } = identity;
    this.identity = identity;
    this.#bounds = bounds;
    const { counts, matches, untilUs } = beginRun(identity, state);
    this.counts = counts;
    this.matches = matches;
    this.untilUs = untilUs;
    this.#intervalUs = specifier.monitoringIntervalMs * 1_000;
    this.isStateless = this.#intervalUs === 0 && specifier.predicate === undefined;
    this.#tickDoneUs = state?.tickDoneUs ?? Number.NEGATIVE_INFINITY;
    this.#points = new Map(
      state?.points.map((point) => [
        point.dataPoint,
        {
          last: point.last === null ? null : measurementFromState(point.last),
          judge: point.judge === null ? null : judgeFromState(point.judge),
        },
      ]),
    );
    this.#pending = new Map(
      state?.pending.map(([tickUs, measurements]) => [
        tickUs,
        new Map(measurements.map((item) => [item[0], measurementFromState(item)])),
      ]),
    );
  }

  take(measurements: readonly Measurement[], progress: Progress, emit: Emit): void {
    if (this.#intervalUs === 0) {
      this.#deliver(measurements, emit);
      return;
    }
    for (const measurement of measurements) this.#await(measurement);
    while (this.#pending.size > this.#bounds.pendingTicksMax) {
      this.counts.earlyTicks += 1;
      this.#measureTick(Math.min(...this.#pending.keys()), emit);
    }
    this.advance(progress, emit);
  }

  advance(progress: Progress, emit: Emit): void {
    if (this.#intervalUs === 0) return;
    for (;;) {
      const tickUs = this.#nextTickUs();
      if (tickUs >= progress.completeUs || tickUs === Number.POSITIVE_INFINITY) return;
      this.#measureTick(tickUs, emit);
    }
  }

  nextDueUs(): number {
    // A row at the very tick belongs to it, so the tick is complete one microsecond later.
    return this.#intervalUs === 0 ? Number.POSITIVE_INFINITY : this.#nextTickUs() + 1;
  }

  lateDueUs(): number {
    return Number.POSITIVE_INFINITY;
  }

  isOver(progress: Progress): boolean {
    const horizonUs = this.#bounds.revisionHorizonMs * 1_000;
    return this.#pending.size === 0 && progress.completeUs >= this.untilUs + horizonUs;
  }

  state(): ImmediateRunState {
    return {
      kind: 'immediate',
      ...commonState(this),
      tickDoneUs: boundToState(this.#tickDoneUs),
      pending: [...this.#pending].map(([tickUs, measurements]) => [
        tickUs,
        [...measurements.values()].map((measurement) => measurementToState(measurement)),
      ]),
      points: [...this.#points].map(([dataPoint, point]) => ({
        dataPoint,
        last: point.last === null ? null : measurementToState(point.last),
        judge: point.judge === null ? null : judgeToState(point.judge),
      })),
    };
  }

  /** Keeps a row for its tick. One whose tick has passed waits for the next, if it is newer than what was measured. */
  #await(measurement: Measurement): void {
    const point = this.#point(measurement.dataPoint);
    if (point === undefined) return;
    if (point.last !== null && measurement.timeUs <= point.last.timeUs) return;
    const tickUs = Math.max(
      ceilToGrid(measurement.timeUs, this.#intervalUs),
      this.#tickDoneUs + this.#intervalUs,
    );
    let waiting = this.#pending.get(tickUs);
    if (waiting === undefined) {
      waiting = new Map();
      this.#pending.set(tickUs, waiting);
    }
    const rival = waiting.get(measurement.dataPoint);
    if (rival === undefined || measurement.timeUs >= rival.timeUs) {
      waiting.set(measurement.dataPoint, measurement);
    }
  }

  /** The next tick at which there is something to measure or to repeat; Infinity: none. */
  #nextTickUs(): number {
    let nextUs = Number.POSITIVE_INFINITY;
    for (const tickUs of this.#pending.keys()) nextUs = Math.min(nextUs, tickUs);
    const holdUs = this.identity.specifier.holdMs * 1_000;
    if (holdUs === 0) return nextUs;
    const followingUs = this.#tickDoneUs + this.#intervalUs;
    if (followingUs >= nextUs || followingUs >= this.untilUs) return nextUs;
    for (const { last } of this.#points.values()) {
      if (last !== null && followingUs - last.timeUs <= holdUs) return followingUs;
    }
    return nextUs;
  }

  #measureTick(tickUs: number, emit: Emit): void {
    const measured = this.#pending.get(tickUs) ?? new Map<DataPoint, Measurement>();
    this.#pending.delete(tickUs);
    this.#tickDoneUs = Math.max(this.#tickDoneUs, tickUs);
    const holdUs = this.identity.specifier.holdMs * 1_000;
    const measurements: Measurement[] = [];
    for (const [dataPoint, point] of this.#points) {
      const measurement = measured.get(dataPoint);
      if (measurement !== undefined) {
        measurements.push(measurement);
        point.last = measurement;
      } else if (
        point.last !== null &&
        tickUs - point.last.timeUs <= holdUs &&
        tickUs < this.untilUs
      ) {
        measurements.push({ ...point.last, timeUs: tickUs, held: true });
      }
    }
    if (measurements.length > 0) this.#deliver(measurements.toSorted(byTimeThenDataPoint), emit);
  }

  #deliver(measurements: readonly Measurement[], emit: Emit): void {
    const { format, predicate } = this.identity.specifier;
    if (format === 'raw' && predicate === undefined) {
      emit(rawDelivery(this.identity, atOnce, measurements));
      return;
    }
    for (const measurement of measurements) {
      const predicateState = this.#judge(measurement);
      if (predicate !== undefined && predicateState === null) continue;
      const occasion = { ...atOnce, predicateState };
      if (format === 'raw') {
        emit(rawDelivery(this.identity, occasion, [measurement]));
        continue;
      }
      const { dataPoint, timeUs } = measurement;
      const result = singleResult(measurement);
      emit(processedDelivery(this.identity, format, occasion, dataPoint, result, timeUs));
    }
  }

  #judge(measurement: Measurement): PredicateState | null {
    const { predicate } = this.identity.specifier;
    const point = predicate === undefined ? undefined : this.#point(measurement.dataPoint);
    if (predicate === undefined || point === undefined) return null;
    const state = point.judge ?? judgeStart;
    const verdict = judge(predicate, state, measurement.value, measurement.timeUs);
    point.judge = verdict.next;
    return verdict.predicateState;
  }

  #point(dataPoint: DataPoint): Point | undefined {
    let point = this.#points.get(dataPoint);
    if (point !== undefined) return point;
    if (this.#points.size >= this.#bounds.dataPointsMax) {
      this.counts.beyondDataPoints += 1;
      return undefined;
    }
    point = { last: null, judge: null };
    this.#points.set(dataPoint, point);
    return point;
  }
}
