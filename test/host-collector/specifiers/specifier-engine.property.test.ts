import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { kpiDataPoint } from '../../../common/wire/data-point.ts';
import type { Delivery, Measurement } from '../../../common/wire/delivery.ts';
import {
  monitoringSpecifierSchema,
  type MonitoringSpecifier,
} from '../../../common/wire/monitoring-specifier.ts';
import {
  SpecifierEngine,
  type EngineInput,
} from '../../../host-collector/specifiers/specifier-engine.ts';
import { naiveWindows } from './naive-windows.ts';

const baseMs = 1_700_000_000_000;
const spanMs = 5_000;
const points = [kpiDataPoint('users', 'a'), kpiDataPoint('users', 'b')] as const;

const specifierArbitrary = fc
  .record({
    format: fc.constantFrom('raw', 'min', 'max', 'mean', 'median'),
    monitoringIntervalMs: fc.constantFrom(0, 0, 1, 7, 100, 250, 1_000, 1_700),
    deliveryIntervalMs: fc.constantFrom(1, 50, 250, 700, 1_000),
  })
  .map((fields) => monitoringSpecifierSchema.parse({ id: 's', dataPoints: 'kpi/**', ...fields }));

const rowArbitrary = fc.record({
  dataPoint: fc.constantFrom(...points),
  // Boundaries are hit often: whole multiples of 50 ms, and one microsecond beside them.
  offsetUs: fc.oneof(
    fc.integer({ min: 0, max: spanMs * 1_000 - 1 }),
    fc
      .tuple(fc.integer({ min: 1, max: spanMs / 50 - 1 }), fc.integer({ min: -1, max: 1 }))
      .map(([step, besideUs]) => step * 50_000 + besideUs),
  ),
  value: fc.oneof(
    fc.integer({ min: -4_000, max: 4_000 }).map((eighths) => eighths / 8),
    fc.constant('text'),
    fc.constant(null),
  ),
});

function toMeasurement(row: {
  dataPoint: (typeof points)[number];
  offsetUs: number;
  value: number | string | null;
}): Measurement {
  const { dataPoint, offsetUs, value } = row;
  return { dataPoint, timeUs: baseMs * 1_000 + offsetUs, uncertaintyUs: 0, value, held: false };
}

const plan = (specifier: MonitoringSpecifier): EngineInput => ({
  kind: 'plan',
  plan: { descriptorRevision: 1, specifiers: [specifier], latenessMaxMs: 500 },
  nowUs: baseMs * 1_000,
});

const inputArbitrary = fc.oneof(
  {
    weight: 8,
    arbitrary: rowArbitrary.map((row): EngineInput => ({
      kind: 'measurements',
      measurements: [toMeasurement(row)],
    })),
  },
  {
    weight: 1,
    arbitrary: fc
      .integer({ min: 0, max: spanMs })
      .map((ms): EngineInput => ({ kind: 'watermark', timeUs: (baseMs + ms) * 1_000 })),
  },
  {
    weight: 1,
    arbitrary: fc
      .integer({ min: 0, max: spanMs + 500 })
      .map((ms): EngineInput => ({ kind: 'time', nowUs: (baseMs + ms) * 1_000 })),
  },
);

const ending: readonly EngineInput[] = [
  { kind: 'watermark', timeUs: (baseMs + spanMs * 3) * 1_000 },
  { kind: 'time', nowUs: (baseMs + spanMs * 3) * 1_000 },
];

function run(engine: SpecifierEngine, inputs: readonly EngineInput[]): Delivery[] {
  const deliveries: Delivery[] = [];
  for (const input of inputs) {
    engine.apply(input, (delivery) => {
      deliveries.push(delivery);
    });
  }
  return deliveries;
}

function isOf(input: EngineInput, point: string): boolean {
  return input.kind === 'measurements' && input.measurements[0]?.dataPoint === point;
}

/** The last revision of each window of each data point. */
function finalRevisions(deliveries: readonly Delivery[]): Map<string, Delivery> {
  const final = new Map<string, Delivery>();
  for (const delivery of deliveries) {
    const point = delivery.kind === 'processed' ? delivery.dataPoint : '';
    const key = `${point} ${delivery.window?.startMs}`;
    const before = final.get(key);
    expect(delivery.revision).toBe(before === undefined ? delivery.revision : before.revision + 1);
    final.set(key, delivery);
  }
  return final;
}

describe('SpecifierEngine, by property', () => {
  test('the last revision of each window is what an independent calculation over all rows gives', () => {
    fc.assert(
      fc.property(
        specifierArbitrary,
        fc.array(inputArbitrary, { maxLength: 60 }),
        (specifier, inputs) => {
          const final = finalRevisions(
            run(new SpecifierEngine(), [plan(specifier), ...inputs, ...ending]),
          );
          const rows = inputs.flatMap((input) =>
            input.kind === 'measurements' ? input.measurements : [],
          );
          const width = specifier.deliveryIntervalMs;
          const fromMs = Math.floor(baseMs / width) * width;
          const perPoint = points.map((point) =>
            naiveWindows(
              specifier,
              rows.filter(({ dataPoint }) => dataPoint === point),
              fromMs,
              baseMs + spanMs * 2,
            ),
          );
          const times = new Map<number, number[]>();
          for (const { startMs, timesUs } of perPoint.flat()) {
            times.set(startMs, [...(times.get(startMs) ?? []), ...timesUs]);
          }
          const gotTimes = new Map<number, number[]>();
          for (const startMs of times.keys()) {
            const delivery = final.get(` ${startMs}`);
            const measurements = delivery?.kind === 'raw' ? delivery.measurements : [];
            gotTimes.set(
              startMs,
              measurements.map(({ timeUs }) => timeUs),
            );
          }
          for (const timesUs of times.values()) timesUs.sort((left, right) => left - right);
          expect(gotTimes).toEqual(
            specifier.format === 'raw' ? times : new Map([...times.keys()].map((key) => [key, []])),
          );
          if (specifier.format === 'raw') return;
          for (const [index, point] of points.entries()) {
            for (const expected of perPoint[index] ?? []) {
              const got = final.get(`${point} ${expected.startMs}`);
              if (expected.timesUs.length === 0 && got === undefined) continue;
              expect(got).toMatchObject({
                value: expected.value,
                count: expected.values.length,
                skippedCount: expected.skippedCount,
              });
            }
          }
        },
      ),
      { numRuns: 250 },
    );
  });

  test('same rows, same hand-over state: same deliveries', () => {
    fc.assert(
      fc.property(
        specifierArbitrary,
        fc.constantFrom(0, 3_000),
        fc.option(fc.constantFrom('level', 'edge')),
        fc.array(inputArbitrary, { maxLength: 40 }),
        fc.nat({ max: 40 }),
        (base, hold, predicateKind, inputs, splitAt) => {
          const specifier = monitoringSpecifierSchema.parse({
            ...base,
            holdMs: Math.min(hold, 100 * (base.monitoringIntervalMs || base.deliveryIntervalMs)),
            ...(predicateKind === null
              ? {}
              : {
                  predicate: {
                    condition: 'above',
                    threshold: 0,
                    kind: predicateKind,
                    hysteresis: 20,
                    minimumDurationMs: 60,
                  },
                }),
          });
          const all = [plan(specifier), ...inputs, ...ending];
          const whole = run(new SpecifierEngine(), all);
          const first = new SpecifierEngine();
          const before = run(first, all.slice(0, splitAt));
          const second = SpecifierEngine.restore(JSON.parse(JSON.stringify(first.state())));
          expect(second.state()).toEqual(first.state());
          expect([...before, ...run(second, all.slice(splitAt))]).toEqual(whole);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('the order between data points makes no difference to what is delivered', () => {
    fc.assert(
      fc.property(
        specifierArbitrary,
        fc.array(rowArbitrary, { maxLength: 40 }),
        (specifier, rows) => {
          const inputs = rows.map((row): EngineInput => ({
            kind: 'measurements',
            measurements: [toMeasurement(row)],
          }));
          const grouped = [
            ...inputs.filter((input) => isOf(input, points[1])),
            ...inputs.filter((input) => isOf(input, points[0])),
          ];
          const one = run(new SpecifierEngine(), [plan(specifier), ...inputs, ...ending]);
          const other = run(new SpecifierEngine(), [plan(specifier), ...grouped, ...ending]);
          expect(other).toEqual(one);
        },
      ),
      { numRuns: 200 },
    );
  });
});
