import type { DataPoint } from '../../common/wire/data-point.ts';
import type {
  Measurement,
  PredicateState,
  Window as WireWindow,
} from '../../common/wire/delivery.ts';
import { Aggregate, type AggregateResult, type NumericFormat } from './aggregate.ts';
import { byTimeThenDataPoint, emitRaw, emptyResult, processedDelivery } from './deliveries.ts';
import type { EngineBounds } from './engine-bounds.ts';
import { judge, judgeStart, type JudgeState } from './predicate-judge.ts';
import type { Emit, RunIdentity } from './specifier-run.ts';
import { ceilToGrid, floorToGrid } from './time-grid.ts';
import type { Content, Window } from './window.ts';

/** One data point of a windowed specifier. */
export interface WindowPoint {
  readonly dataPoint: DataPoint;
  /** Windows from this start on are delivered in turn for it, empty ones too. */
  firstUs: number;
  /** The newest row of the windows closed so far; what later ones repeat. */
  last: Measurement | null;
  judge: JudgeState | null;
  /** For each tick kept, the time of the row that it measured. */
  readonly ticks: Map<number, number>;
}

interface Judged {
  readonly measurements: readonly Measurement[];
  readonly newestState: PredicateState | null;
}

/** Turns windows into deliveries: what is in them, what is repeated, what the predicate lets through. */
export class WindowDelivery {
  readonly #identity: RunIdentity;
  readonly #bounds: EngineBounds;
  readonly #windows: ReadonlyMap<number, Window>;
  readonly #points: ReadonlyMap<DataPoint, WindowPoint>;
  readonly #widthUs: number;
  readonly #tickUs: number;
  readonly #holdUs: number;
  /** Points by name, so that deliveries do not depend on which point was seen first; null: to be sorted. */
  #sorted: readonly WindowPoint[] | null = null;

  constructor(
    identity: RunIdentity,
    bounds: EngineBounds,
    windows: ReadonlyMap<number, Window>,
    points: ReadonlyMap<DataPoint, WindowPoint>,
  ) {
    this.#identity = identity;
    this.#bounds = bounds;
    this.#windows = windows;
    this.#points = points;
    this.#widthUs = identity.specifier.deliveryIntervalMs * 1_000;
    this.#tickUs = identity.specifier.monitoringIntervalMs * 1_000;
    this.#holdUs = identity.specifier.holdMs * 1_000;
  }

  pointsChanged(): void {
    this.#sorted = null;
  }

  /** Whether a value is repeated in a window that starts at `startUs` and has no row. */
  holdsAt(startUs: number): boolean {
    if (this.#holdUs === 0) return false;
    for (const { last } of this.#points.values()) {
      if (last !== null && startUs - last.timeUs <= this.#holdUs) return true;
    }
    return false;
  }

  /** Delivers the window for the first time. */
  close(startUs: number, endUs: number, emit: Emit): void {
    const window = this.#windows.get(startUs);
    const { format } = this.#identity.specifier;
    if (format === 'raw') this.#closeRaw(window, startUs, endUs, emit);
    else this.#closeProcessed(format, window, startUs, endUs, emit);
  }

  /** Delivers a run of windows in which nothing is, as one. */
  closeEmpty(startUs: number, endUs: number, emit: Emit): void {
    const { format } = this.#identity.specifier;
    const occasion = { window: wireWindow(startUs, endUs), revision: 0, predicateState: null };
    if (format === 'raw') {
      emitRaw(this.#identity, occasion, [], 1, emit);
      return;
    }
    for (const { dataPoint, firstUs } of this.#sortedPoints()) {
      if (firstUs > startUs) continue;
      emit(processedDelivery(this.#identity, format, occasion, dataPoint, emptyResult, endUs));
    }
  }

  /** Delivers a closed window again after late rows. */
  revise(window: Window, endUs: number, emit: Emit): void {
    const { format } = this.#identity.specifier;
    if (format === 'raw') {
      this.#reviseRaw(window, endUs, emit);
      return;
    }
    for (const dataPoint of [...window.contents.keys()].toSorted()) {
      const content = window.contents.get(dataPoint);
      if (content?.isDirty !== true) continue;
      content.isDirty = false;
      const point = this.#points.get(dataPoint);
      if (point === undefined) continue;
      const result = this.#result(format, point, content, window.startUs, endUs);
      const verdict = this.#judgeResult(content.judgeBefore, result, endUs);
      // What was delivered must be corrected, whether or not the predicate lets the corrected value through.
      if (verdict?.predicateState === null && content.revision === 0) continue;
      const occasion = {
        window: wireWindow(window.startUs, endUs),
        revision: content.revision,
        predicateState: verdict?.predicateState ?? null,
      };
      content.revision += 1;
      emit(processedDelivery(this.#identity, format, occasion, dataPoint, result, endUs));
    }
  }

  /** Delivers what an open raw window has so far, and empties it. */
  spill(window: Window, endUs: number, emit: Emit): void {
    const measurements: Measurement[] = [];
    for (const [dataPoint, content] of window.contents) {
      const point = this.#points.get(dataPoint);
      if (point === undefined) continue;
      const judged = this.#judgeAll(point.judge, byTime(content.measurements.values()));
      point.judge = judged.next;
      measurements.push(...judged.measurements);
      content.measurements.clear();
    }
    window.keptCount = 0;
    window.isSpilled = true;
    const occasion = {
      window: wireWindow(window.startUs, endUs),
      revision: 0,
      predicateState: null,
    };
    if (measurements.length > 0) this.#emitRaw(occasion, measurements, emit);
  }

  /** The newest row of `point` before `timeUs`, as far as it is kept. */
  newestBefore(point: WindowPoint, timeUs: number): Measurement | null {
    if (this.#holdUs === 0 || this.#tickUs === 0) return null;
    let newestTickUs = Number.NEGATIVE_INFINITY;
    for (const [tickUs, rowUs] of point.ticks) {
      if (rowUs < timeUs && tickUs > newestTickUs) newestTickUs = tickUs;
    }
    const kept = this.#sampleAt(point, newestTickUs);
    if (kept !== undefined) return kept;
    return point.last !== null && point.last.timeUs < timeUs ? point.last : null;
  }

  #closeRaw(window: Window | undefined, startUs: number, endUs: number, emit: Emit): void {
    const measurements: Measurement[] = [];
    let newest: { readonly timeUs: number; readonly state: PredicateState | null } | null = null;
    for (const point of this.#sortedPoints()) {
      const content = window?.contents.get(point.dataPoint);
      const all = this.#measurements(point, content, startUs, endUs);
      if (content !== undefined) content.judgeBefore = point.judge;
      const judged = this.#judgeAll(point.judge, all);
      point.judge = judged.next;
      measurements.push(...judged.measurements);
      const timeUs = judged.measurements.at(-1)?.timeUs;
      if (timeUs !== undefined && (newest === null || timeUs >= newest.timeUs)) {
        newest = { timeUs, state: judged.newestState };
      }
      this.#remember(point, content);
    }
    const isNeedless =
      window?.isSpilled === true || this.#identity.specifier.predicate !== undefined;
    if (measurements.length > 0 || !isNeedless) {
      const occasion = {
        window: wireWindow(startUs, endUs),
        revision: 0,
        predicateState: newest?.state ?? null,
      };
      this.#emitRaw(occasion, measurements, emit);
      if (window !== undefined) window.revision = 1;
    }
    if (window?.isSpilled === true) emptySpilled(window);
  }

  #reviseRaw(window: Window, endUs: number, emit: Emit): void {
    const measurements: Measurement[] = [];
    for (const [dataPoint, content] of window.contents) {
      content.isDirty = false;
      const point = this.#points.get(dataPoint);
      if (point === undefined) continue;
      const all = this.#measurements(point, content, window.startUs, endUs);
      measurements.push(...this.#judgeAll(content.judgeBefore, all).measurements);
    }
    if (!window.isSpilled) this.#addHeldOfOthers(window, endUs, measurements);
    if (measurements.length > 0 || window.revision > 0) {
      const occasion = {
        window: wireWindow(window.startUs, endUs),
        // Parts of a spilled window add up: what came late is one more part.
        revision: window.isSpilled ? 0 : window.revision,
        predicateState: null,
      };
      this.#emitRaw(occasion, measurements, emit);
      window.revision += 1;
    }
    if (window.isSpilled) emptySpilled(window);
  }

  /** A revision replaces the whole window, so what it repeated of points without a row in it belongs to it too. */
  #addHeldOfOthers(window: Window, endUs: number, measurements: Measurement[]): void {
    if (this.#holdUs === 0 || this.#identity.specifier.predicate !== undefined) return;
    for (const point of this.#sortedPoints()) {
      if (window.contents.has(point.dataPoint) || point.firstUs > window.startUs) continue;
      const last = this.newestBefore(point, window.startUs) ?? point.last;
      if (last === null || last.timeUs >= window.startUs) continue;
      measurements.push(...this.#held(point, last, window.startUs, endUs));
    }
  }

  #closeProcessed(
    format: NumericFormat,
    window: Window | undefined,
    startUs: number,
    endUs: number,
    emit: Emit,
  ): void {
    for (const point of this.#sortedPoints()) {
      if (point.firstUs > startUs) continue;
      const content = window?.contents.get(point.dataPoint);
      const result = this.#result(format, point, content, startUs, endUs);
      if (content !== undefined) content.judgeBefore = point.judge;
      const verdict = this.#judgeResult(point.judge, result, endUs);
      this.#remember(point, content);
      if (verdict !== null) point.judge = verdict.next;
      if (verdict?.predicateState === null) continue;
      const occasion = {
        window: wireWindow(startUs, endUs),
        revision: 0,
        predicateState: verdict?.predicateState ?? null,
      };
      if (content !== undefined) content.revision = 1;
      emit(processedDelivery(this.#identity, format, occasion, point.dataPoint, result, endUs));
    }
  }

  #result(
    format: NumericFormat,
    point: WindowPoint,
    content: Content | undefined,
    startUs: number,
    endUs: number,
  ): AggregateResult {
    if (content !== undefined && content.aggregate !== null) return content.aggregate.result();
    const measurements = this.#measurements(point, content, startUs, endUs);
    if (measurements.length === 0) return emptyResult;
    const aggregate = new Aggregate(format);
    for (const { value, timeUs, held } of measurements) aggregate.add(value, timeUs, held);
    return aggregate.result();
  }

  /** The measurements of one data point in one window by time, with what is repeated. */
  #measurements(
    point: WindowPoint,
    content: Content | undefined,
    startUs: number,
    endUs: number,
  ): Measurement[] {
    const own = content === undefined ? [] : [...content.measurements.values()];
    if (this.#holdUs > 0) {
      if (content !== undefined && content.heldFrom === null) content.heldFrom = point.last;
      const from = content === undefined ? point.last : content.heldFrom;
      const isRepeating = this.#tickUs > 0 || own.length === 0;
      if (isRepeating) own.push(...this.#held(point, from, startUs, endUs));
    }
    return byTime(own);
  }

  /** With ticks, one for each without a row; else one at the beginning of the window. */
  #held(
    point: WindowPoint,
    from: Measurement | null,
    startUs: number,
    endUs: number,
  ): Measurement[] {
    const held: Measurement[] = [];
    let last = from !== null && from.timeUs < endUs ? from : null;
    if (this.#tickUs === 0) {
      if (last !== null && startUs - last.timeUs <= this.#holdUs) held.push(repeat(last, startUs));
      return held;
    }
    for (let tickUs = ceilToGrid(startUs, this.#tickUs); tickUs < endUs; tickUs += this.#tickUs) {
      const sample = this.#sampleAt(point, tickUs);
      if (sample !== undefined) last = sample;
      else if (last !== null && last.timeUs <= tickUs && tickUs - last.timeUs <= this.#holdUs) {
        held.push(repeat(last, tickUs));
      }
    }
    return held;
  }

  #sampleAt(point: WindowPoint, tickUs: number): Measurement | undefined {
    const rowUs = point.ticks.get(tickUs);
    if (rowUs === undefined) return undefined;
    const window = this.#windows.get(floorToGrid(rowUs, this.#widthUs));
    return window?.contents.get(point.dataPoint)?.measurements.get(tickUs);
  }

  #remember(point: WindowPoint, content: Content | undefined): void {
    const newest = content?.newest ?? null;
    if (newest !== null && (point.last === null || newest.timeUs >= point.last.timeUs)) {
      point.last = newest;
    }
  }

  #judgeAll(
    before: JudgeState | null,
    measurements: readonly Measurement[],
  ): Judged & { readonly next: JudgeState | null } {
    const { predicate } = this.#identity.specifier;
    if (predicate === undefined) return { measurements, newestState: null, next: null };
    let next = before ?? judgeStart;
    let newestState: PredicateState | null = null;
    const passed = measurements.filter((measurement) => {
      const verdict = judge(predicate, next, measurement.value, measurement.timeUs);
      next = verdict.next;
      if (verdict.predicateState !== null) newestState = verdict.predicateState;
      return verdict.predicateState !== null;
    });
    return { measurements: passed, newestState, next };
  }

  /** null without a predicate. A window without a value is not judged, and not delivered. */
  #judgeResult(
    before: JudgeState | null,
    result: AggregateResult,
    endUs: number,
  ): { readonly predicateState: PredicateState | null; readonly next: JudgeState } | null {
    const { predicate } = this.#identity.specifier;
    if (predicate === undefined) return null;
    const state = before ?? judgeStart;
    if (result.value === null) return { predicateState: null, next: state };
    // The value is one of the whole window, so it holds from the window's end on, not from its newest row.
    return judge(predicate, state, result.value, endUs);
  }

  #emitRaw(
    occasion: Parameters<typeof emitRaw>[1],
    measurements: readonly Measurement[],
    emit: Emit,
  ): void {
    const sorted = measurements.toSorted(byTimeThenDataPoint);
    emitRaw(this.#identity, occasion, sorted, this.#bounds.deliveryMeasurementsMax, emit);
  }

  #sortedPoints(): readonly WindowPoint[] {
    this.#sorted ??= [...this.#points.values()].toSorted((left, right) =>
      left.dataPoint < right.dataPoint ? -1 : 1,
    );
    return this.#sorted;
  }
}

function byTime(measurements: Iterable<Measurement>): Measurement[] {
  return [...measurements].toSorted((left, right) => left.timeUs - right.timeUs);
}

function repeat(last: Measurement, timeUs: number): Measurement {
  return { ...last, timeUs, held: true };
}

function wireWindow(startUs: number, endUs: number): WireWindow {
  return { startMs: startUs / 1_000, endMs: endUs / 1_000 };
}

function emptySpilled(window: Window): void {
  for (const content of window.contents.values()) content.measurements.clear();
  window.keptCount = 0;
}
