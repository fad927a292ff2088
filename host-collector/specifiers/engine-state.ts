import { z } from 'zod';

import { parseDataPoint } from '../../common/wire/data-point.ts';
import { monitoringSpecifierSchema } from '../../common/wire/monitoring-specifier.ts';
import type { Value } from '../../common/wire/value.ts';

/**
 * The state of an engine as JSON: what is written to disk and handed over when a VM moves. A change of its meaning
 * raises the version; a program reads its own version and, through a migration, the one before.
 */
export const engineStateVersion = 1;

const finite = z.number();
/** Times may be unbounded, which JSON can't say: null stands for that. */
const boundUs = z.int().nullable();
const dataPoint = z.string().transform((text, context) => {
  const parsed = parseDataPoint(text);
  if (parsed === undefined) context.addIssue('not a data point');
  return parsed ?? z.NEVER;
});

/** A double has at most 309 digits. Integers have 64 bits now; medians of earlier programs could have more. */
const integer = z.strictObject({ integer: z.string().regex(/^-?\d{1,309}$/) });
const numeric = z.union([finite, integer]);
export type NumericState = z.output<typeof numeric>;
const value = z.union([
  finite,
  z.string(),
  z.null(),
  integer,
  z.strictObject({ bytes: z.base64() }),
]);
export type ValueState = z.output<typeof value>;

export const measurementState = z.tuple([dataPoint, z.int(), z.int(), value, z.boolean()]);
export type MeasurementState = z.output<typeof measurementState>;

const aggregate = z.strictObject({
  count: z.int(),
  skippedCount: z.int(),
  heldCount: z.int(),
  newestUs: z.int().nullable(),
  extreme: numeric.nullable(),
  sum: z.strictObject({ partials: z.array(finite), huge: z.array(finite) }).nullable(),
  median: z
    .strictObject({
      values: z.array(numeric),
      buckets: z
        .strictObject({ bits: z.int(), counts: z.array(z.tuple([finite, z.int()])) })
        .nullable(),
    })
    .nullable(),
});
export type AggregateJson = z.output<typeof aggregate>;

const judgeState = z.strictObject({
  newestUs: z.int().nullable(),
  isInside: z.boolean(),
  holdsSinceUs: z.int().nullable(),
  reference: value,
});
export type JudgeJson = z.output<typeof judgeState>;

const identity = {
  specifier: monitoringSpecifierSchema,
  descriptorRevision: z.int(),
  fromUs: boundUs,
  createdUs: z.int(),
  untilUs: boundUs,
  counts: z.strictObject({
    unplaced: z.int(),
    beyondDataPoints: z.int(),
    earlyTicks: z.int(),
  }),
};

const immediateRun = z.strictObject({
  kind: z.literal('immediate'),
  ...identity,
  tickDoneUs: boundUs,
  pending: z.array(z.tuple([z.int(), z.array(measurementState)])),
  points: z.array(
    z.strictObject({
      dataPoint,
      last: measurementState.nullable(),
      judge: judgeState.nullable(),
    }),
  ),
});
export type ImmediateRunState = z.output<typeof immediateRun>;

const content = z.strictObject({
  dataPoint,
  aggregate: aggregate.nullable(),
  measurements: z.array(z.tuple([z.int(), measurementState])),
  judgeBefore: judgeState.nullable(),
  heldFrom: measurementState.nullable(),
  newest: measurementState.nullable(),
  revision: z.int(),
  isDirty: z.boolean(),
});
const windowState = z.strictObject({
  startUs: z.int(),
  isClosed: z.boolean(),
  isSpilled: z.boolean(),
  lateSinceUs: z.int().nullable(),
  revision: z.int(),
  contents: z.array(content),
});
export type WindowState = z.output<typeof windowState>;

const windowedRun = z.strictObject({
  kind: z.literal('windowed'),
  ...identity,
  cursorUs: boundUs,
  firstUs: boundUs,
  forgottenUs: boundUs,
  windows: z.array(windowState),
  points: z.array(
    z.strictObject({
      dataPoint,
      firstUs: boundUs,
      last: measurementState.nullable(),
      judge: judgeState.nullable(),
      ticks: z.array(z.tuple([z.int(), z.int()])),
    }),
  ),
});
export type WindowedRunState = z.output<typeof windowedRun>;

const runState = z.discriminatedUnion('kind', [immediateRun, windowedRun]);
export type RunState = z.output<typeof runState>;

export const engineStateSchema = z.strictObject({
  version: z.literal(engineStateVersion),
  descriptorRevision: z.int(),
  latenessMaxMs: z.int(),
  nowUs: boundUs,
  resumedUs: boundUs,
  guestWatermarkUs: boundUs,
  completeUs: z.strictObject({ guest: boundUs, host: boundUs, both: boundUs }),
  newestUs: boundUs,
  runs: z.array(runState),
});
export type EngineState = z.output<typeof engineStateSchema>;

export function valueToState(plain: Value): ValueState {
  if (typeof plain === 'bigint') return { integer: plain.toString() };
  if (plain instanceof Uint8Array) return { bytes: Buffer.from(plain).toString('base64') };
  return plain;
}

export function valueFromState(state: ValueState): Value {
  if (typeof state !== 'object' || state === null) return state;
  if ('integer' in state) return numericFromState(state);
  return new Uint8Array(Buffer.from(state.bytes, 'base64'));
}

/** The nearest number stands for an integer beyond 64 bits, as it does in deliveries. */
export function numericFromState(state: NumericState): number | bigint {
  if (typeof state === 'number') return state;
  const exact = BigInt(state.integer);
  return BigInt.asIntN(64, exact) === exact ? exact : Number(exact);
}

/** A bound as JSON; either infinity becomes null, and the reader knows which it was. */
export function boundToState(timeUs: number): number | null {
  return Number.isFinite(timeUs) ? timeUs : null;
}
