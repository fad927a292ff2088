import { z } from 'zod';

import { monitoringSpecifierSchema } from '../../common/wire/monitoring-specifier.ts';
import { measurementState } from '../specifiers/engine-state.ts';
import { measurementFromState, measurementToState } from '../specifiers/measurement-state.ts';
import type { EngineInput } from '../specifiers/specifier-engine.ts';

const input = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('measurements'),
    measurements: z.array(measurementState).transform((items) => items.map(measurementFromState)),
  }),
  z.strictObject({ kind: z.literal('watermark'), timeUs: z.int() }),
  z.strictObject({ kind: z.literal('time'), nowUs: z.int() }),
  z.strictObject({ kind: z.literal('resumed'), nowUs: z.int() }),
  z.strictObject({
    kind: z.literal('plan'),
    nowUs: z.int(),
    plan: z.strictObject({
      descriptorRevision: z.int(),
      latenessMaxMs: z.int(),
      specifiers: z.array(monitoringSpecifierSchema),
    }),
  }),
]);
const inputs = z.array(input);

/** Inputs of an engine as one line of its journal. */
export function inputsToJson(list: readonly EngineInput[]): string {
  return JSON.stringify(
    list.map((item) =>
      item.kind === 'measurements'
        ? { kind: item.kind, measurements: item.measurements.map(measurementToState) }
        : item,
    ),
  );
}

/** @throws when the line is not what {@link inputsToJson} wrote. */
export function inputsFromJson(json: string): readonly EngineInput[] {
  return inputs.parse(JSON.parse(json));
}
