import { compileDataPointPattern } from '../common/wire/data-point.ts';
import type { PrimaryStore } from './store/primary-store.ts';
import type { Reading, ReadingFilter } from './store/reading-reader.ts';

export interface WatchStart {
  /** Go on behind this position; wins over the filter's `sinceUs`. */
  readonly after?: number;
}

/** Readings that one look at the store reads; a watcher that is slow costs the store nothing but that. */
const rowsPerLook = 1_000;

/**
 * Readings that match, in order of arrival: from history if `after` or `sinceUs` says so, then live, until `signal` aborts.
 * History and live come from the same positions, so that nothing is missed or repeated where they meet. A watcher that
 * falls behind reads on from the store.
 */
export async function* watchReadings(
  store: PrimaryStore,
  filter: ReadingFilter,
  start: WatchStart,
  signal: AbortSignal,
): AsyncGenerator<readonly Reading[], void> {
  const { reader } = store;
  const matches = readingMatcher(filter);
  let position = startPosition(store, filter, start);
  let wake: (() => void) | undefined;
  const stir = (): void => {
    wake?.();
  };
  const cancel = store.onCommit(stir);
  signal.addEventListener('abort', stir);
  try {
    while (!signal.aborted) {
      // Made before looking, so that a commit after the look is not overslept.
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const look = reader.after(position, matches, rowsPerLook);
      position = look.nextPosition;
      if (look.readings.length > 0) yield look.readings;
      if (look.atEnd && !signal.aborted) await woken;
    }
  } finally {
    cancel();
    signal.removeEventListener('abort', stir);
  }
}

/** The position behind which {@link watchReadings} begins. */
export function startPosition(
  store: PrimaryStore,
  filter: ReadingFilter,
  start: WatchStart,
): number {
  const { sinceUs } = filter;
  // After a power cut the store can be behind what a watcher saw last: it gets what comes from now on.
  if (start.after !== undefined) return Math.min(start.after, store.reader.newestPosition());
  if (sinceUs === undefined) return store.reader.newestPosition();
  return store.reader.positionBefore({ ...filter, sinceUs });
}

function readingMatcher(filter: ReadingFilter): (reading: Reading) => boolean {
  const matchesPattern = compileDataPointPattern(filter.pattern);
  const bySeries = new Map<string, boolean>();
  return (reading) => {
    if (filter.vm !== undefined && filter.vm !== reading.vm) return false;
    if (filter.sinceUs !== undefined && reading.timeUs < filter.sinceUs) return false;
    const known = bySeries.get(reading.dataPoint);
    if (known !== undefined) return known;
    const isMatch = matchesPattern(reading.dataPoint);
    bySeries.set(reading.dataPoint, isMatch);
    return isMatch;
  };
}
