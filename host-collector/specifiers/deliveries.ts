import type { DataPoint } from '../../common/wire/data-point.ts';
import type {
  Measurement,
  PredicateState,
  ProcessedDelivery,
  RawDelivery,
  Window,
} from '../../common/wire/delivery.ts';
import { isNumeric, type AggregateResult, type NumericFormat } from './aggregate.ts';
import type { Emit, RunIdentity } from './specifier-run.ts';

/** Which delivery of which window. */
export interface Occasion {
  readonly window: Window | null;
  readonly revision: number;
  readonly predicateState: PredicateState | null;
}

export const atOnce: Occasion = { window: null, revision: 0, predicateState: null };

export function rawDelivery(
  identity: RunIdentity,
  occasion: Occasion,
  measurements: readonly Measurement[],
): RawDelivery {
  return {
    kind: 'raw',
    specifierId: identity.specifier.id,
    descriptorRevision: identity.descriptorRevision,
    window: occasion.window,
    revision: occasion.revision,
    predicateState: occasion.predicateState,
    measurements,
  };
}

/** Emits `measurements`, sorted by time and data point, in deliveries of at most `countMax`; an empty one if there are none. */
export function emitRaw(
  identity: RunIdentity,
  occasion: Occasion,
  measurements: readonly Measurement[],
  countMax: number,
  emit: Emit,
): void {
  if (measurements.length <= countMax) {
    emit(rawDelivery(identity, occasion, measurements));
    return;
  }
  for (let index = 0; index < measurements.length; index += countMax) {
    emit(rawDelivery(identity, occasion, measurements.slice(index, index + countMax)));
  }
}

export function processedDelivery(
  identity: RunIdentity,
  format: NumericFormat,
  occasion: Occasion,
  dataPoint: DataPoint,
  result: AggregateResult,
  emptyTimeUs: number,
): ProcessedDelivery {
  return {
    kind: 'processed',
    specifierId: identity.specifier.id,
    descriptorRevision: identity.descriptorRevision,
    dataPoint,
    window: occasion.window,
    revision: occasion.revision,
    predicateState: occasion.predicateState,
    format,
    value: result.value === null ? null : Number(result.value),
    timeUs: result.newestUs ?? emptyTimeUs,
    count: result.count,
    skippedCount: result.skippedCount,
    ...(result.heldCount > 0 ? { heldCount: result.heldCount } : {}),
    ...(result.relativeErrorMax > 0 ? { relativeErrorMax: result.relativeErrorMax } : {}),
  };
}

/** A single measurement as a numeric function sees it. */
export function singleResult(measurement: Measurement): AggregateResult {
  const takesPart = isNumeric(measurement.value);
  return {
    value: takesPart ? measurement.value : null,
    count: takesPart ? 1 : 0,
    skippedCount: takesPart ? 0 : 1,
    heldCount: takesPart && measurement.held ? 1 : 0,
    newestUs: takesPart ? measurement.timeUs : null,
    relativeErrorMax: 0,
  };
}

export const emptyResult: AggregateResult = {
  value: null,
  count: 0,
  skippedCount: 0,
  heldCount: 0,
  newestUs: null,
  relativeErrorMax: 0,
};

/** By time, then data point in code unit order, whatever order they arrived in. */
export function byTimeThenDataPoint(left: Measurement, right: Measurement): number {
  if (left.timeUs !== right.timeUs) return left.timeUs - right.timeUs;
  if (left.dataPoint === right.dataPoint) return 0;
  return left.dataPoint < right.dataPoint ? -1 : 1;
}
