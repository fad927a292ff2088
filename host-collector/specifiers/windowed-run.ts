import assert from 'node:assert';

import { isLiteralPattern, parseDataPoint, type DataPoint } from '../../common/wire/data-point.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import { Aggregate } from './aggregate.ts';
import type { EngineBounds } from './engine-bounds.ts';
import { boundToState, type WindowedRunState } from './engine-state.ts';
import { KeptWindows } from './kept-windows.ts';
import {
  judgeFromState,
  judgeToState,
  measurementFromState,
  measurementToState,
} from './measurement-state.ts';
import type { JudgeState } from './predicate-judge.ts';
import {
  beginRun,
  commonState,
  type Emit,
  type Progress,
  type RunCounts,
  type RunIdentity,
  type SpecifierRun,
} from './specifier-run.ts';
import { ceilToGrid, floorToGrid } from './time-grid.ts';
import { WindowDelivery, type WindowPoint } from './window-delivery.ts';
import { emptyContent, type Content, type Window } from './window.ts';

/**
 * A specifier with a delivery interval: windows [kn, (k+1)n) of epoch time.
 *
 *     open --everything before its end has come--> closed, revision 0 delivered
 *                                                   |  late row          ^ watermark, or latenessMaxMs after the row
 *                                                   v                    |
 *                                                  late -----------------+ revision + 1 delivered
 *
 * What the last revision of a window says follows from its rows alone, in whatever order they came.
 */
export class WindowedRun implements SpecifierRun {
  readonly identity: RunIdentity;
  readonly counts: RunCounts;
  readonly matches: (dataPoint: DataPoint) => boolean;
  readonly isStateless = false;
  untilUs: number;
  readonly #bounds: EngineBounds;
  readonly #windows: KeptWindows;
  readonly #widthUs: number;
  readonly #tickUs: number;
  readonly #points: Map<DataPoint, WindowPoint>;
  readonly #delivery: WindowDelivery;
  /** Start of the next window to close; -Infinity before the first. */
  #cursorUs: number;
  /** Start of the first window that was, or will be, closed in turn. */
  #firstUs: number;

  constructor(identity: RunIdentity, bounds: EngineBounds, state?: WindowedRunState) {
    const { specifier } = identity;
    this.identity = identity;
    this.#bounds = bounds;
    const { counts, matches, untilUs } = beginRun(identity, state);
    this.counts = counts;
    this.matches = matches;
    this.untilUs = untilUs;
    this.#widthUs = specifier.deliveryIntervalMs * 1_000;
    this.#tickUs = specifier.monitoringIntervalMs * 1_000;
    assert(this.#widthUs > 0);
    const firstUs =
      identity.fromUs === Number.NEGATIVE_INFINITY
        ? identity.fromUs
        : floorToGrid(identity.fromUs, this.#widthUs);
    this.#cursorUs = state === undefined ? firstUs : (state.cursorUs ?? Number.NEGATIVE_INFINITY);
    this.#firstUs = state === undefined ? firstUs : (state.firstUs ?? Number.NEGATIVE_INFINITY);
    this.#windows = new KeptWindows(bounds, specifier.format, state);
    this.#points = pointsFromState(state);
    this.#delivery = new WindowDelivery(identity, bounds, this.#windows.byStart, this.#points);
    const literal = isLiteralPattern(specifier.dataPoints)
      ? parseDataPoint(specifier.dataPoints)
      : undefined;
    if (literal !== undefined && state === undefined) {
      this.#addPoint(literal, Number.NEGATIVE_INFINITY);
    }
  }

  take(measurements: readonly Measurement[], progress: Progress, emit: Emit): void {
    for (const measurement of measurements) {
      const startUs = floorToGrid(measurement.timeUs, this.#widthUs);
      if (this.#cursorUs === Number.NEGATIVE_INFINITY) {
        this.#begin(Math.min(measurement.timeUs, this.identity.createdUs));
      }
      if (this.#windows.isForgotten(startUs)) {
        this.counts.unplaced += 1;
        continue;
      }
      const point = this.#point(measurement.dataPoint, startUs);
      if (point !== undefined) this.#place(point, measurement, startUs, progress, emit);
    }
  }

  advance(progress: Progress, emit: Emit): void {
    if (progress.completeUs === Number.NEGATIVE_INFINITY) return;
    if (this.#cursorUs === Number.NEGATIVE_INFINITY) {
      const { createdUs } = this.identity;
      const hasNoGuest = progress.watermarkUs === Number.NEGATIVE_INFINITY;
      if (hasNoGuest && progress.completeUs <= createdUs) return;
      this.#begin(Math.min(progress.completeUs, createdUs));
    }
    const closedCount = this.#closeWindows(this.#reachUs(progress.completeUs), emit);
    const revisedCount = this.#windows.lateCount > 0 ? this.#reviseWindows(progress, emit) : 0;
    if (closedCount + revisedCount > 0) this.#forgetWindows(progress, emit);
  }

  nextDueUs(): number {
    if (this.#cursorUs === Number.NEGATIVE_INFINITY) return this.identity.createdUs + 1;
    if (this.#cursorUs >= this.untilUs) return Number.POSITIVE_INFINITY;
    return this.#neededUs(this.#endUs(this.#cursorUs));
  }

  lateDueUs(progress: Progress): number {
    return this.#windows.lateDueUs(progress);
  }

  isOver(progress: Progress): boolean {
    const horizonUs = this.#bounds.revisionHorizonMs * 1_000;
    return (
      this.#cursorUs >= this.untilUs &&
      this.#windows.lateCount === 0 &&
      progress.completeUs >= this.untilUs + horizonUs
    );
  }

  state(): WindowedRunState {
    return {
      kind: 'windowed',
      ...commonState(this),
      cursorUs: boundToState(this.#cursorUs),
      firstUs: boundToState(this.#firstUs),
      ...this.#windows.state(),
      points: [...this.#points.values()].map((point) => ({
        dataPoint: point.dataPoint,
        firstUs: boundToState(point.firstUs),
        last: point.last === null ? null : measurementToState(point.last),
        judge: point.judge === null ? null : judgeToState(point.judge),
        ticks: [...point.ticks],
      })),
    };
  }

  #begin(timeUs: number): void {
    this.#cursorUs = floorToGrid(timeUs, this.#widthUs);
    this.#firstUs = this.#cursorUs;
  }

  #place(
    point: WindowPoint,
    measurement: Measurement,
    startUs: number,
    progress: Progress,
    emit: Emit,
  ): void {
    if (this.#tickUs > 0 && !this.#takeTick(point, measurement, progress)) return;
    const window = this.#window(startUs);
    if (window === undefined) {
      this.counts.unplaced += 1;
      return;
    }
    const content = this.#content(window, point);
    this.#put(window, content, measurement);
    if (window.isClosed) {
      this.#windows.markLate(window, content, progress);
    } else if (
      this.identity.specifier.format === 'raw' &&
      this.#tickUs === 0 &&
      window.keptCount >= this.#bounds.rawWindowMeasurementsMax
    ) {
      this.#delivery.spill(window, this.#endUs(startUs), emit);
    }
  }

  #put(window: Window, content: Content, measurement: Measurement): void {
    const { format, holdMs } = this.identity.specifier;
    if (content.aggregate !== null) {
      content.aggregate.add(measurement.value, measurement.timeUs, measurement.held);
      if (format === 'median') window.keptCount += 1;
    } else if (this.#tickUs > 0) {
      content.measurements.set(ceilToGrid(measurement.timeUs, this.#tickUs), measurement);
      window.keptCount += 1;
    } else {
      content.measurements.set(content.measurements.size, measurement);
      window.keptCount += 1;
    }
    if (holdMs > 0 && (content.newest === null || measurement.timeUs >= content.newest.timeUs)) {
      content.newest = measurement;
    }
  }

  /**
   * Whether the row is the newest of its tick so far. The one that it replaces leaves its window, which may be another
   * one and may have been delivered.
   */
  #takeTick(point: WindowPoint, measurement: Measurement, progress: Progress): boolean {
    const tickUs = ceilToGrid(measurement.timeUs, this.#tickUs);
    const rivalUs = point.ticks.get(tickUs);
    if (rivalUs !== undefined && measurement.timeUs < rivalUs) return false;
    point.ticks.set(tickUs, measurement.timeUs);
    const window =
      rivalUs === undefined
        ? undefined
        : this.#windows.byStart.get(floorToGrid(rivalUs, this.#widthUs));
    const content = window?.contents.get(point.dataPoint);
    if (window !== undefined && content?.measurements.delete(tickUs) === true) {
      window.keptCount -= 1;
      if (window.isClosed) this.#windows.markLate(window, content, progress);
    }
    return true;
  }

  #window(startUs: number): Window | undefined {
    const known = this.#windows.byStart.get(startUs);
    if (known !== undefined) return known;
    const isClosed = startUs < this.#cursorUs;
    const window = this.#windows.add(startUs, isClosed);
    if (window !== undefined && isClosed) {
      window.revision = this.#deliveredEmpty(startUs, this.#firstUs) ? 1 : 0;
    }
    return window;
  }

  #content(window: Window, point: WindowPoint): Content {
    const known = window.contents.get(point.dataPoint);
    if (known !== undefined) return known;
    const { format } = this.identity.specifier;
    const aggregate = format === 'raw' || this.#tickUs > 0 ? null : new Aggregate(format);
    const content = emptyContent(aggregate);
    if (window.isClosed) {
      content.revision = this.#deliveredEmpty(window.startUs, point.firstUs) ? 1 : 0;
      content.judgeBefore = this.#judgeBefore(point, window.startUs);
      content.heldFrom = this.#delivery.newestBefore(point, window.startUs);
    }
    window.contents.set(point.dataPoint, content);
    return content;
  }

  /**
   * The predicate's state at a closed window that had no row: as it moved nothing, what the next one that had a row
   * began with.
   */
  #judgeBefore(point: WindowPoint, startUs: number): JudgeState | null {
    if (this.identity.specifier.predicate === undefined) return null;
    let nextUs = Number.POSITIVE_INFINITY;
    let judgeBefore = point.judge;
    for (const { startUs: otherUs, isClosed, contents } of this.#windows.byStart.values()) {
      if (!isClosed || otherUs <= startUs || otherUs >= nextUs) continue;
      const content = contents.get(point.dataPoint);
      if (content === undefined) continue;
      nextUs = otherUs;
      judgeBefore = content.judgeBefore;
    }
    return judgeBefore;
  }

  /** Whether a closed window of which nothing is kept was delivered, then with count 0. */
  #deliveredEmpty(startUs: number, firstUs: number): boolean {
    return (
      this.identity.specifier.predicate === undefined && startUs >= Math.max(firstUs, this.#firstUs)
    );
  }

  #point(dataPoint: DataPoint, startUs: number): WindowPoint | undefined {
    const known = this.#points.get(dataPoint);
    if (known !== undefined) {
      if (startUs >= this.#cursorUs) known.firstUs = Math.min(known.firstUs, startUs);
      return known;
    }
    if (this.#points.size >= this.#bounds.dataPointsMax) {
      this.counts.beyondDataPoints += 1;
      return undefined;
    }
    return this.#addPoint(dataPoint, Math.max(startUs, this.#cursorUs));
  }

  #addPoint(dataPoint: DataPoint, firstUs: number): WindowPoint {
    const point: WindowPoint = { dataPoint, firstUs, last: null, judge: null, ticks: new Map() };
    this.#points.set(dataPoint, point);
    this.#delivery.pointsChanged();
    return point;
  }

  #endUs(startUs: number): number {
    return Math.min(startUs + this.#widthUs, this.untilUs);
  }

  /** Windows that end at or before this can close: their rows, and the ticks that choose among them, are complete. */
  #reachUs(completeUs: number): number {
    return this.#tickUs === 0 ? completeUs : floorToGrid(completeUs - 1, this.#tickUs) + 1;
  }

  /** How far event time must be complete for a window that ends at `endUs` to close. */
  #neededUs(endUs: number): number {
    return this.#tickUs === 0 ? endUs : ceilToGrid(endUs - 1, this.#tickUs) + 1;
  }

  #closeWindows(reachUs: number, emit: Emit): number {
    let closedCount = 0;
    while (this.#cursorUs < this.untilUs && this.#endUs(this.#cursorUs) <= reachUs) {
      this.#skipEmptyWindows(Math.min(reachUs, this.untilUs), emit);
      const startUs = this.#cursorUs;
      if (startUs >= this.untilUs || this.#endUs(startUs) > reachUs) break;
      this.#cursorUs = startUs + this.#widthUs;
      const window = this.#windows.byStart.get(startUs);
      this.#delivery.close(startUs, this.#endUs(startUs), emit);
      if (window !== undefined) window.isClosed = true;
      closedCount += 1;
    }
    return closedCount;
  }

  /** Passes over a run of empty windows: with a predicate they say nothing, and of a long run all but the newest are one. */
  #skipEmptyWindows(reachUs: number, emit: Emit): void {
    const filledUs = this.#windows.firstFrom(this.#cursorUs);
    const endUs = Math.min(filledUs, floorToGrid(reachUs, this.#widthUs));
    const kept = this.identity.specifier.predicate === undefined ? this.#bounds.emptyWindowsMax : 0;
    const wideEndUs = endUs - kept * this.#widthUs;
    if (wideEndUs <= this.#cursorUs || this.#delivery.holdsAt(this.#cursorUs)) return;
    if (kept > 0) this.#delivery.closeEmpty(this.#cursorUs, wideEndUs, emit);
    this.#cursorUs = wideEndUs;
  }

  #reviseWindows(progress: Progress, emit: Emit): number {
    const due = this.#windows.due(progress, (startUs) => this.#neededUs(this.#endUs(startUs)));
    for (const window of due) this.#revise(window, emit);
    return due.length;
  }

  #revise(window: Window, emit: Emit): void {
    this.#windows.settle(window);
    this.#delivery.revise(window, this.#endUs(window.startUs), emit);
  }

  #forgetWindows(progress: Progress, emit: Emit): void {
    this.#windows.forget(
      progress,
      (startUs) => this.#endUs(startUs),
      (window) => {
        if (window.lateSinceUs !== null) this.#revise(window, emit);
        this.#forgetTicks(window);
      },
    );
  }

  #forgetTicks(window: Window): void {
    if (this.#tickUs === 0) return;
    for (const [dataPoint, content] of window.contents) {
      const ticks = this.#points.get(dataPoint)?.ticks;
      for (const tickUs of content.measurements.keys()) ticks?.delete(tickUs);
    }
  }
}

function pointsFromState(state: WindowedRunState | undefined): Map<DataPoint, WindowPoint> {
  return new Map(
    state?.points.map((point) => [
      point.dataPoint,
      {
        dataPoint: point.dataPoint,
        firstUs: point.firstUs ?? Number.NEGATIVE_INFINITY,
        last: point.last === null ? null : measurementFromState(point.last),
        judge: point.judge === null ? null : judgeFromState(point.judge),
        ticks: new Map(point.ticks),
      },
    ]),
  );
}
