import { z } from 'zod';

import { patternReaches } from './data-point.ts';

/**
 * The monitoring part of a VM descriptor (federated-interfaces IV): what to measure, how often, when and in which
 * form to deliver it.
 */

export const formats = ['raw', 'min', 'max', 'mean', 'median'] as const;
/** `raw` delivers every measurement; the others one number a window. */
export type Format = (typeof formats)[number];

const intervalMsMax = 7 * 24 * 3_600_000;

/** A window has at most this many monitoring ticks, and a value is repeated at most this many times. */
export const ticksPerWindowMax = 100_000;
export const heldRepeatsMax = 10_000;

const predicateBase = {
  /**
   * `level`: deliver while the condition holds. `edge`: deliver when it begins (`entering`) or ends (`leaving`),
   * and the first value seen as the initial state.
   */
  kind: z.enum(['level', 'edge']).default('level'),
  /** With `edge`: which changes are delivered. */
  edges: z.enum(['entering', 'leaving', 'both']).default('both'),
  /** The condition ends only when the value is this far back beyond its threshold. */
  hysteresis: z.number().nonnegative().default(0),
  /** The condition counts once it has held this long, in event time. */
  minimumDurationMs: z.int().nonnegative().max(intervalMsMax).default(0),
};

export const predicateSchema = z.discriminatedUnion('condition', [
  z.strictObject({ condition: z.literal('below'), threshold: z.number(), ...predicateBase }),
  z.strictObject({ condition: z.literal('above'), threshold: z.number(), ...predicateBase }),
  z
    .strictObject({
      condition: z.literal('outside'),
      lower: z.number(),
      upper: z.number(),
      ...predicateBase,
    })
    .refine((predicate) => predicate.lower <= predicate.upper, 'lower must not exceed upper'),
  z.strictObject({
    condition: z.literal('changed-by'),
    /** Deliver when the value differs from the last delivered one by at least this much; text: when it differs. */
    delta: z.number().nonnegative(),
    kind: predicateBase.kind,
    minimumDurationMs: predicateBase.minimumDurationMs,
  }),
]);
/** When a measurement, or a window's processed value, is delivered at all. */
export type Predicate = z.output<typeof predicateSchema>;

/** One line of what a VM's primary site wants to know. */
export const monitoringSpecifierSchema = z
  .strictObject({
    /** Unique within the VM; names the specifier in deliveries, logs and commands. */
    id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them'),
    /** A data point, or a pattern of them: `kpi/users/column1`, `kpi/**`, `infra/cpu/*`. */
    dataPoints: z.string().min(1).max(512),
    /** 0: every row, and infrastructure as often as the probe allows. n: at each multiple of n ms of the epoch. */
    monitoringIntervalMs: z.int().nonnegative().max(intervalMsMax).default(0),
    /** 0: as soon as available. n: windows [kn, (k+1)n) of epoch time. */
    deliveryIntervalMs: z.int().nonnegative().max(intervalMsMax).default(0),
    format: z.enum(formats).default('raw'),
    predicate: predicateSchema.optional(),
    /** A gauge without a new value repeats its last one for this long, marked as held. 0: never. */
    holdMs: z.int().nonnegative().max(intervalMsMax).default(0),
  })
  .refine(
    (specifier) => specifier.format === 'raw' || !coversEncrypted(specifier.dataPoints),
    'a processed format needs values in the clear; encrypted/ data points are delivered raw',
  )
  .refine(
    ({ monitoringIntervalMs, deliveryIntervalMs }) =>
      monitoringIntervalMs === 0 || deliveryIntervalMs / monitoringIntervalMs <= ticksPerWindowMax,
    `a delivery interval holds at most ${ticksPerWindowMax} monitoring intervals`,
  )
  .refine(
    (specifier) => specifier.holdMs <= heldRepeatsMax * repeatIntervalMs(specifier),
    `holdMs repeats a value at each monitoring (or else delivery) interval, of which it needs one, and at most ${heldRepeatsMax} times`,
  )
  .refine(
    (specifier) => specifier.predicate === undefined || !coversEncrypted(specifier.dataPoints),
    'a predicate needs values in the clear; encrypted/ data points are delivered without one',
  );
export type MonitoringSpecifier = z.output<typeof monitoringSpecifierSchema>;

/** The times at which a held value is repeated: monitoring ticks, else the beginnings of windows; 0: never. */
function repeatIntervalMs(specifier: {
  readonly monitoringIntervalMs: number;
  readonly deliveryIntervalMs: number;
}): number {
  return specifier.monitoringIntervalMs > 0
    ? specifier.monitoringIntervalMs
    : specifier.deliveryIntervalMs;
}

function coversEncrypted(pattern: string): boolean {
  return patternReaches(pattern, 'encrypted');
}
