import type { DataPoint } from '../../common/wire/data-point.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import { Aggregate, type NumericFormat } from './aggregate.ts';
import type { WindowState } from './engine-state.ts';
import {
  aggregateFromState,
  aggregateToState,
  judgeFromState,
  judgeToState,
  measurementFromState,
  measurementToState,
} from './measurement-state.ts';
import type { JudgeState } from './predicate-judge.ts';

/** What one data point has in one window. */
export interface Content {
  /** A processed format without ticks needs no more than this. */
  readonly aggregate: Aggregate | null;
  /** The measurements otherwise: by tick with a monitoring interval, else by order of arrival. */
  readonly measurements: Map<number, Measurement>;
  /** The predicate's state before this window, from which a revision is judged. */
  judgeBefore: JudgeState | null;
  /** The newest row before this window, which ticks without a row repeat. */
  heldFrom: Measurement | null;
  /** The newest row in it, kept only where a later window may repeat it. */
  newest: Measurement | null;
  /** Revision that its next processed delivery has. */
  revision: number;
  /** Changed since it was last delivered. */
  isDirty: boolean;
}

/**
 * One window of one specifier: open until its end is complete, closed and delivered then, kept for revisions until it
 * is forgotten. Closed windows never reopen.
 */
export interface Window {
  readonly startUs: number;
  isClosed: boolean;
  /** Part of a raw window was delivered early, so that a revision has only what came later. */
  isSpilled: boolean;
  /** Host time of the first late row that is not delivered yet; null when there is none. */
  lateSinceUs: number | null;
  /** Revision that its next raw delivery has. */
  revision: number;
  readonly contents: Map<DataPoint, Content>;
  /** Measurements kept in all contents. */
  keptCount: number;
}

export function openWindow(startUs: number): Window {
  return {
    startUs,
    isClosed: false,
    isSpilled: false,
    lateSinceUs: null,
    revision: 0,
    contents: new Map(),
    keptCount: 0,
  };
}

export function emptyContent(aggregate: Aggregate | null): Content {
  return {
    aggregate,
    measurements: new Map(),
    judgeBefore: null,
    heldFrom: null,
    newest: null,
    revision: 0,
    isDirty: false,
  };
}

export function windowToState(window: Window): WindowState {
  return {
    startUs: window.startUs,
    isClosed: window.isClosed,
    isSpilled: window.isSpilled,
    lateSinceUs: window.lateSinceUs,
    revision: window.revision,
    contents: [...window.contents].map(([dataPoint, content]) => ({
      dataPoint,
      aggregate: content.aggregate === null ? null : aggregateToState(content.aggregate.state()),
      measurements: [...content.measurements].map(([key, measurement]) => [
        key,
        measurementToState(measurement),
      ]),
      judgeBefore: content.judgeBefore === null ? null : judgeToState(content.judgeBefore),
      heldFrom: content.heldFrom === null ? null : measurementToState(content.heldFrom),
      newest: content.newest === null ? null : measurementToState(content.newest),
      revision: content.revision,
      isDirty: content.isDirty,
    })),
  };
}

export function windowFromState(state: WindowState, format: NumericFormat | 'raw'): Window {
  const contents = new Map<DataPoint, Content>();
  let keptCount = 0;
  for (const item of state.contents) {
    keptCount += item.measurements.length + (item.aggregate?.median?.values.length ?? 0);
    contents.set(item.dataPoint, {
      aggregate:
        item.aggregate === null || format === 'raw'
          ? null
          : new Aggregate(format, aggregateFromState(item.aggregate)),
      measurements: new Map(
        item.measurements.map(([key, measurement]) => [key, measurementFromState(measurement)]),
      ),
      judgeBefore: item.judgeBefore === null ? null : judgeFromState(item.judgeBefore),
      heldFrom: item.heldFrom === null ? null : measurementFromState(item.heldFrom),
      newest: item.newest === null ? null : measurementFromState(item.newest),
      revision: item.revision,
      isDirty: item.isDirty,
    });
  }
  const { startUs, isClosed, isSpilled, lateSinceUs, revision } = state;
  return { startUs, isClosed, isSpilled, lateSinceUs, revision, contents, keptCount };
}
