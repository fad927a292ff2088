import type { Format } from '../../common/wire/monitoring-specifier.ts';
import type { EngineBounds } from './engine-bounds.ts';
import { boundToState, type WindowedRunState } from './engine-state.ts';
import type { Progress } from './specifier-run.ts';
import { openWindow, windowFromState, windowToState, type Content, type Window } from './window.ts';

/** The windows of one specifier that are open, late, or kept for revisions; which of them are late, and which forgotten. */
export class KeptWindows {
  readonly #bounds: EngineBounds;
  readonly #byStart: Map<number, Window>;
  /** Windows up to this start are no longer kept. */
  #forgottenUs: number;
  #lateCount: number;

  constructor(bounds: EngineBounds, format: Format, state?: WindowedRunState) {
    this.#bounds = bounds;
    this.#byStart = new Map(
      state?.windows.map((window) => [window.startUs, windowFromState(window, format)]),
    );
    this.#forgottenUs = state?.forgottenUs ?? Number.NEGATIVE_INFINITY;
    this.#lateCount = [...this.#byStart.values()].filter(
      ({ lateSinceUs }) => lateSinceUs !== null,
    ).length;
  }

  get byStart(): ReadonlyMap<number, Window> {
    return this.#byStart;
  }

  get lateCount(): number {
    return this.#lateCount;
  }

  isForgotten(startUs: number): boolean {
    return startUs <= this.#forgottenUs;
  }

  /** A new window at `startUs`; undefined when an open one would be more than may be. */
  add(startUs: number, isClosed: boolean): Window | undefined {
    const limit = this.#bounds.openWindowsMax + this.#bounds.closedWindowsMax;
    if (!isClosed && this.#byStart.size >= limit) return undefined;
    const window = openWindow(startUs);
    window.isClosed = isClosed;
    this.#byStart.set(startUs, window);
    return window;
  }

  /** Start of the oldest window at or after `fromUs`; Infinity when there is none. */
  firstFrom(fromUs: number): number {
    let firstUs = Number.POSITIVE_INFINITY;
    for (const startUs of this.#byStart.keys()) {
      if (startUs >= fromUs) firstUs = Math.min(firstUs, startUs);
    }
    return firstUs;
  }

  markLate(window: Window, content: Content, progress: Progress): void {
    content.isDirty = true;
    if (window.lateSinceUs !== null) return;
    window.lateSinceUs = progress.nowUs;
    this.#lateCount += 1;
  }

  /** It is delivered again. */
  settle(window: Window): void {
    window.lateSinceUs = null;
    this.#lateCount -= 1;
  }

  /** Late windows whose revision leaves now, by time: the watermark has passed what they need, or lateness is over. */
  due(progress: Progress, neededUs: (startUs: number) => number): readonly Window[] {
    return [...this.#byStart.values()]
      .filter(
        ({ startUs, lateSinceUs }) =>
          lateSinceUs !== null &&
          (progress.watermarkUs >= neededUs(startUs) ||
            progress.nowUs >= lateSinceUs + progress.latenessUs),
      )
      .toSorted(byStartUs);
  }

  /** The host time at which a late window is delivered at the latest; Infinity: none is late. */
  lateDueUs(progress: Progress): number {
    let dueUs = Number.POSITIVE_INFINITY;
    if (this.#lateCount === 0) return dueUs;
    for (const { lateSinceUs } of this.#byStart.values()) {
      if (lateSinceUs !== null) dueUs = Math.min(dueUs, lateSinceUs + progress.latenessUs);
    }
    return dueUs;
  }

  /**
   * Forgets closed windows that end `revisionHorizonMs` before the watermark, and the oldest beyond the bounds; `leave`
   * gets each before it goes.
   */
  forget(
    progress: Progress,
    endUs: (startUs: number) => number,
    leave: (window: Window) => void,
  ): void {
    const closed = [...this.#byStart.values()].filter(({ isClosed }) => isClosed);
    let count = closed.length;
    let keptCount = closed.reduce((sum, window) => sum + window.keptCount, 0);
    const horizonUs = progress.watermarkUs - this.#bounds.revisionHorizonMs * 1_000;
    for (const window of closed.toSorted(byStartUs)) {
      const isOld = endUs(window.startUs) <= horizonUs && window.lateSinceUs === null;
      const isBeyond =
        count > this.#bounds.closedWindowsMax || keptCount > this.#bounds.closedMeasurementsMax;
      if (!isOld && !isBeyond) return;
      leave(window);
      this.#byStart.delete(window.startUs);
      this.#forgottenUs = Math.max(this.#forgottenUs, window.startUs);
      count -= 1;
      keptCount -= window.keptCount;
    }
  }

  state(): Pick<WindowedRunState, 'forgottenUs' | 'windows'> {
    return {
      forgottenUs: boundToState(this.#forgottenUs),
      windows: [...this.#byStart.values()].map((window) => windowToState(window)),
    };
  }
}

function byStartUs(left: Window, right: Window): number {
  return left.startUs - right.startUs;
}
