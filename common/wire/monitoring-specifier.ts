import { z } from 'zod';

import { alternativesRule, besideFieldErrors, crossFieldRule } from './cross-field.ts';
import { patternProblem, patternReaches } from './data-point.ts';

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

/** A pattern over data points that can match one. */
export const dataPointPatternSchema = z
  .string()
  .min(1)
  .max(512)
  .superRefine((pattern, context) => {
    const message = patternProblem(pattern);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  });

const predicateBase = {
  kind: z
    .enum(['level', 'edge'])
    .default('level')
    .describe(
      'level: deliver while the condition holds. edge: when it begins or ends, and the first value seen.',
    ),
  edges: z
    .enum(['entering', 'leaving', 'both'])
    .default('both')
    .describe('With kind edge: which changes of the condition are delivered.'),
  hysteresis: z
    .number()
    .nonnegative()
    .default(0)
    .describe(
      'The condition ends only when the value is this far back beyond its threshold; unit of the value, 0 or more.',
    ),
  minimumDurationMs: z
    .int()
    .nonnegative()
    .max(intervalMsMax)
    .default(0)
    .describe('The condition counts once it has held this long in event time; ms, at most 7 days.'),
};

const conditionText =
  'When to deliver: the value is below or above threshold, outside lower to upper, or changed-by delta.';

function condition<Name extends string>(name: Name) {
  return z.literal(name).describe(conditionText);
}

const threshold = z.number().describe('With below and above: the limit; unit of the value.');

const predicateAlternatives = [
  z.strictObject({ condition: condition('below'), threshold, ...predicateBase }),
  z.strictObject({ condition: condition('above'), threshold, ...predicateBase }),
  z.strictObject({
    condition: condition('outside'),
    lower: z.number().describe('With outside: the lower limit, at most upper; unit of the value.'),
    upper: z.number().describe('With outside: the upper limit; unit of the value.'),
    ...predicateBase,
  }),
  z.strictObject({
    condition: condition('changed-by'),
    delta: z
      .number()
      .nonnegative()
      .describe(
        'With changed-by: the least difference from the value last delivered, 0 or more; text: any difference.',
      ),
    kind: predicateBase.kind,
    minimumDurationMs: predicateBase.minimumDurationMs,
  }),
] as const;

const lowerUpToUpper = crossFieldRule(
  z.object({ condition: z.literal('outside'), lower: z.number(), upper: z.number() }),
  ({ lower, upper }) =>
    lower <= upper ? [] : [{ path: ['lower'], message: `must not exceed upper, ${upper}` }],
);

export const predicateSchema = z
  .discriminatedUnion('condition', predicateAlternatives)
  .superRefine(alternativesRule('condition', predicateAlternatives), besideFieldErrors)
  .superRefine(lowerUpToUpper, besideFieldErrors);
/** When a measurement, or a window's processed value, is delivered at all. */
export type Predicate = z.output<typeof predicateSchema>;

const intervals = {
  monitoringIntervalMs: z
    .int()
    .nonnegative()
    .max(intervalMsMax)
    .default(0)
    .describe(
      'When to measure; ms, at most 7 days. 0: every row, and infrastructure as often as the probe allows. n: at each multiple of n of the epoch.',
    ),
  deliveryIntervalMs: z
    .int()
    .nonnegative()
    .max(intervalMsMax)
    .default(0)
    .describe(
      `When to deliver; ms, at most 7 days and ${ticksPerWindowMax} monitoring intervals. 0: as soon as available. n: windows of n of the epoch.`,
    ),
};
const holdMs = z
  .int()
  .nonnegative()
  .max(intervalMsMax)
  .default(0)
  .describe(
    `How long a gauge without a new value repeats its last one, marked as held, at each monitoring (else delivery) interval; ms, at most ${heldRepeatsMax} times and 7 days. 0: never.`,
  );
const format = z
  .enum(formats)
  .default('raw')
  .describe(
    'raw: every measurement. min, max, mean, median: one number a window, not for encrypted/.',
  );

const processedInTheClear = crossFieldRule(
  z.object({ format, dataPoints: dataPointPatternSchema }),
  (specifier) =>
    specifier.format === 'raw' || !patternReaches(specifier.dataPoints, 'encrypted')
      ? []
      : [
          {
            path: ['format'],
            message:
              'a processed format needs values in the clear; encrypted/ data points are delivered raw',
          },
        ],
);

const predicateInTheClear = crossFieldRule(
  z.object({ predicate: z.looseObject({}), dataPoints: dataPointPatternSchema }),
  (specifier) =>
    patternReaches(specifier.dataPoints, 'encrypted')
      ? [
          {
            path: ['predicate'],
            message:
              'a predicate needs values in the clear; encrypted/ data points are delivered without one',
          },
        ]
      : [],
);

const ticksBounded = crossFieldRule(
  z.object(intervals),
  ({ monitoringIntervalMs, deliveryIntervalMs }) =>
    monitoringIntervalMs === 0 || deliveryIntervalMs / monitoringIntervalMs <= ticksPerWindowMax
      ? []
      : [
          {
            path: ['deliveryIntervalMs'],
            message: `a delivery interval holds at most ${ticksPerWindowMax} monitoring intervals`,
          },
        ],
);

const repeatsBounded = crossFieldRule(z.object({ ...intervals, holdMs }), (specifier) =>
  specifier.holdMs <= heldRepeatsMax * repeatIntervalMs(specifier)
    ? []
    : [
        {
          path: ['holdMs'],
          message: `holdMs repeats a value at each monitoring (or else delivery) interval, of which it needs one, and at most ${heldRepeatsMax} times`,
        },
      ],
);

/** One line of what a VM's primary site wants to know. All problems of one are reported at once. */
export const monitoringSpecifierSchema = z
  .strictObject({
    id: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them')
      .describe(
        'Names the specifier in deliveries, logs and commands; unique in the VM, 1 to 64 of A-Z a-z 0-9 _ -.',
      ),
    dataPoints: dataPointPatternSchema.describe(
      'A data point, or a pattern of them, at most 512 characters: `kpi/users/column1`, `kpi/**`, `infra/cpu/*`.',
    ),
    ...intervals,
    format,
    predicate: predicateSchema
      .optional()
      .describe('Deliver only what it holds for; not for encrypted/. Default: everything.'),
    holdMs,
  })
  .superRefine(processedInTheClear, besideFieldErrors)
  .superRefine(predicateInTheClear, besideFieldErrors)
  .superRefine(ticksBounded, besideFieldErrors)
  .superRefine(repeatsBounded, besideFieldErrors);
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
