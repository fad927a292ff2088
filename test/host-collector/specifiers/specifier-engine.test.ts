import { describe, expect, test } from 'vitest';

import { infraDataPoint, kpiDataPoint } from '../../../common/wire/data-point.ts';
import type { Delivery } from '../../../common/wire/delivery.ts';
import { monitoringSpecifierSchema } from '../../../common/wire/monitoring-specifier.ts';
import type { Value } from '../../../common/wire/value.ts';
import { engineBoundsDefault } from '../../../host-collector/specifiers/engine-bounds.ts';
import { SpecifierEngine } from '../../../host-collector/specifiers/specifier-engine.ts';

const baseMs = 1_700_000_000_000;
const users = kpiDataPoint('users', 'n');

/** An engine with one specifier, driven in milliseconds after a whole second. */
class Bench {
  readonly engine: SpecifierEngine;
  readonly deliveries: Delivery[] = [];

  constructor(specifier: object, bounds = engineBoundsDefault) {
    this.engine = new SpecifierEngine(bounds);
    this.plan(1, specifier, 0);
  }

  plan(descriptorRevision: number, specifier: object, nowMs: number): this {
    const specifiers = [
      monitoringSpecifierSchema.parse({ id: 's', dataPoints: 'kpi/**', ...specifier }),
    ];
    const plan = { descriptorRevision, specifiers, latenessMaxMs: 5_000 };
    this.engine.apply({ kind: 'plan', plan, nowUs: us(nowMs) }, this.#emit);
    return this;
  }

  row(ms: number, value: Value, dataPoint = users): this {
    const measurement = { dataPoint, timeUs: us(ms), uncertaintyUs: 0, value, held: false };
    this.engine.apply({ kind: 'measurements', measurements: [measurement] }, this.#emit);
    return this;
  }

  watermark(ms: number): this {
    this.engine.apply({ kind: 'watermark', timeUs: us(ms) }, this.#emit);
    return this;
  }

  time(ms: number): this {
    this.engine.apply({ kind: 'time', nowUs: us(ms) }, this.#emit);
    return this;
  }

  /** What was delivered since the last call, briefly. */
  take(): object[] {
    return this.deliveries.splice(0).map((delivery) => ({
      ...(delivery.window === null
        ? {}
        : { window: [delivery.window.startMs - baseMs, delivery.window.endMs - baseMs] }),
      ...(delivery.revision === 0 ? {} : { revision: delivery.revision }),
      ...(delivery.predicateState === null ? {} : { state: delivery.predicateState }),
      ...(delivery.kind === 'raw'
        ? {
            values: delivery.measurements.map(({ value, held }) =>
              held ? `held ${String(value)}` : value,
            ),
          }
        : { value: delivery.value, count: delivery.count }),
    }));
  }

  readonly #emit = (delivery: Delivery): void => {
    this.deliveries.push(delivery);
  };
}

function us(ms: number): number {
  return (baseMs + ms) * 1_000;
}

describe('SpecifierEngine', () => {
  test('monitoring interval 0: every row; delivery interval 0: at once', () => {
    expect(new Bench({}).row(1, 5).row(1, 6).row(0, 'late').take()).toEqual([
      { values: [5] },
      { values: [6] },
      { values: ['late'] },
    ]);
  });

  test('delivery interval 0 at once (processed: count 1)', () => {
    expect(new Bench({ format: 'mean' }).row(1, 5).row(2, 'text').take()).toEqual([
      { value: 5, count: 1 },
      { value: null, count: 0 },
    ]);
  });

  test('interval n: at each multiple of n ms of the epoch, the newest row at or before it that was not yet measured', () => {
    const bench = new Bench({ monitoringIntervalMs: 100 });
    bench.row(10, 1).row(100, 2).row(100.001, 3).watermark(100).take();
    expect(bench.watermark(100.001).take()).toEqual([{ values: [2] }]);
    expect(bench.watermark(200.001).take()).toEqual([{ values: [3] }]);
    // Newer than what was measured, but its tick has passed: the next tick measures it.
    expect(bench.row(150, 4).watermark(300.001).take()).toEqual([{ values: [4] }]);
    expect(bench.row(120, 5).watermark(400.001).take()).toEqual([]);
  });

  test('windows [kn, (k+1)n) of epoch time close on the watermark', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'max' });
    bench.row(0, 1).row(999.999, 2).row(1_000, 9).watermark(999.999);
    expect(bench.take()).toEqual([]);
    expect(bench.watermark(1_000).take()).toEqual([{ window: [0, 1_000], value: 2, count: 2 }]);
  });

  test('a window closes on latenessMaxMs when the guest is silent, and a later row makes a revision of its window', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'mean' }).row(10, 4);
    expect(bench.time(5_999).take()).toEqual([]);
    expect(bench.time(6_000).take()).toEqual([{ window: [0, 1_000], value: 4, count: 1 }]);
    expect(bench.row(20, 8).take()).toEqual([]);
    expect(bench.watermark(1_000).take()).toEqual([
      { window: [0, 1_000], revision: 1, value: 6, count: 2 },
    ]);
    // The watermark has passed the window already: whatever moves time next delivers the revision.
    expect(bench.row(30, 9).time(6_001).take()).toEqual([
      { window: [0, 1_000], revision: 2, value: 7, count: 3 },
    ]);
  });

  test('empty windows are delivered with count 0', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'min' }).row(10, 4);
    expect(bench.watermark(3_000).take()).toEqual([
      { window: [0, 1_000], value: 4, count: 1 },
      { window: [1_000, 2_000], value: null, count: 0 },
      { window: [2_000, 3_000], value: null, count: 0 },
    ]);
  });

  test('a long silence is one wide empty window and the newest emptyWindowsMax', () => {
    const bounds = { ...engineBoundsDefault, emptyWindowsMax: 2 };
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'min' }, bounds).row(10, 4);
    const day = 86_400_000;
    expect(bench.watermark(day).take()).toEqual([
      { window: [0, 1_000], value: 4, count: 1 },
      { window: [1_000, day - 2_000], value: null, count: 0 },
      { window: [day - 2_000, day - 1_000], value: null, count: 0 },
      { window: [day - 1_000, day], value: null, count: 0 },
    ]);
    expect(
      bench
        .row(5_500, 3)
        .watermark(day + 1)
        .take(),
    ).toEqual([{ window: [5_000, 6_000], revision: 1, value: 3, count: 1 }]);
  });

  test('median of an even count is the mean of the middle two, of integers beyond 2^53 too', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'median' });
    for (const value of [9, 1, 4, 3]) bench.row(1, value);
    bench.row(1_001, 2n ** 60n).row(1_002, 2n ** 60n + 512n);
    expect(bench.watermark(2_000).take()).toMatchObject([
      { value: 3.5, count: 4 },
      { value: Number(2n ** 60n + 256n), count: 2 },
    ]);
  });

  test('text under a numeric function is skipped and counted', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'mean' });
    bench.row(1, 'x').row(2, null).row(3, 6).watermark(1_000);
    expect(bench.deliveries).toMatchObject([{ value: 6, count: 1, skippedCount: 2 }]);
  });

  test('the mean is exact where a plain sum is not', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'mean' });
    for (const value of [1e100, 1, -1e100, 1]) bench.row(1, value);
    bench.row(1_001, Number.MAX_VALUE).row(1_002, Number.MAX_VALUE).watermark(2_000);
    expect(bench.take()).toMatchObject([{ value: 0.5 }, { value: Number.MAX_VALUE }]);
  });

  test('level: deliver while true; hysteresis keeps it so until the value is that far back', () => {
    const predicate = { condition: 'above', threshold: 90, hysteresis: 5 };
    const bench = new Bench({ predicate });
    for (const [index, value] of [80, 91, 88, 85, 88].entries()) bench.row(index, value);
    expect(bench.take()).toEqual([
      { values: [91], state: 'entering' },
      { values: [88], state: 'inside' },
    ]);
  });

  test('edge: entering, leaving, initial state, after a minimum duration in event time', () => {
    const predicate = { condition: 'below', threshold: 10, kind: 'edge', minimumDurationMs: 100 };
    const bench = new Bench({ predicate })
      .row(0, 50)
      .row(100, 5)
      .row(150, 5)
      .row(200, 5)
      .row(250, 11);
    expect(bench.take()).toEqual([
      { values: [50], state: 'initial' },
      { values: [5], state: 'entering' },
      { values: [11], state: 'leaving' },
    ]);
  });

  test.each([
    [{ condition: 'below', threshold: 10 }, [5]],
    [{ condition: 'above', threshold: 90 }, [95]],
    [{ condition: 'outside', lower: 10, upper: 90 }, [5, 95]],
    [{ condition: 'changed-by', delta: 45 }, [50, 5, 90]],
  ])('predicates (below, above, outside, changed by): %j', (predicate, delivered) => {
    const bench = new Bench({ predicate });
    for (const [index, value] of [50, 10, 5, 90, 95, 50].entries()) bench.row(index, value);
    const values = bench.take().flatMap((item) => ('values' in item ? item.values : []));
    expect(values).toEqual(delivered);
  });

  test('changed by: against the value delivered last, text when it differs', () => {
    const bench = new Bench({ predicate: { condition: 'changed-by', delta: 2 } });
    for (const [index, value] of [10, 11, 12, 13, 'a', 'a', 'b'].entries()) bench.row(index, value);
    expect(bench.take().map((item) => ('values' in item ? item.values : null))).toEqual([
      [10],
      [12],
      ['a'],
      ['b'],
    ]);
  });

  test('holdMs repeats a gauge that has no new value, marked as held', () => {
    const bench = new Bench({ monitoringIntervalMs: 100, holdMs: 250 }).row(50, 7).watermark(1_000);
    expect(bench.take()).toEqual([{ values: [7] }, { values: ['held 7'] }, { values: ['held 7'] }]);
    const windows = new Bench({ deliveryIntervalMs: 100, format: 'mean', holdMs: 100 }).row(50, 7);
    windows.watermark(300);
    expect(windows.deliveries).toMatchObject([
      { value: 7, count: 1 },
      { value: 7, count: 1, heldCount: 1 },
      { value: null, count: 0 },
    ]);
  });

  test('specifiers change from the next boundary on', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'max' }).row(10, 1);
    bench
      .plan(2, { deliveryIntervalMs: 500, format: 'min' }, 100)
      .row(400, 9)
      .row(600, 3)
      .row(700, 2);
    expect(bench.watermark(1_000).take()).toEqual([
      { window: [0, 500], value: 9, count: 2 },
      { window: [500, 1_000], value: 2, count: 2 },
    ]);
    expect(bench.engine.descriptorRevision).toBe(2);
  });

  test('infrastructure windows close by the host clock, without a guest', () => {
    const cpu = infraDataPoint('cpu', 'usage_ratio');
    const bench = new Bench({ dataPoints: 'infra/**', deliveryIntervalMs: 1_000, format: 'mean' });
    bench.row(10, 0.5, cpu).row(20, 1, cpu).time(999.999);
    expect(bench.take()).toEqual([]);
    expect(bench.engine.nextDueUs()).toBe(us(1_000));
    expect(bench.time(1_000).take()).toEqual([{ window: [0, 1_000], value: 0.75, count: 2 }]);
  });

  test('rows of windows that are no longer kept are counted, never silence', () => {
    const bench = new Bench({ deliveryIntervalMs: 1_000, format: 'min' })
      .row(10, 4)
      .watermark(2_000);
    bench.watermark(100_000).row(20, 5);
    expect(bench.engine.counts.unplaced).toBe(1);
  });

  test.each([
    [
      'data points beyond dataPointsMax',
      { dataPointsMax: 1 },
      { deliveryIntervalMs: 1_000, format: 'max' },
      { beyondDataPoints: 1 },
    ],
    [
      'windows further ahead than openWindowsMax',
      { openWindowsMax: 1, closedWindowsMax: 0 },
      { deliveryIntervalMs: 1_000, format: 'max' },
      { unplaced: 1 },
    ],
    [
      'ticks beyond pendingTicksMax',
      { pendingTicksMax: 1 },
      { monitoringIntervalMs: 100 },
      { earlyTicks: 1 },
    ],
    [
      'windows older than closedWindowsMax',
      { closedWindowsMax: 1 },
      { deliveryIntervalMs: 1_000, format: 'max' },
      { unplaced: 1 },
    ],
  ])(
    'what is beyond a bound is counted, never silence: %s',
    (_name, changed, specifier, counts) => {
      const bounds = { ...engineBoundsDefault, ...changed };
      const bench = new Bench(specifier, bounds);
      bench.row(10, 1).row(1_010, 2, kpiDataPoint('users', 'other'));
      if (bounds.closedWindowsMax === 1) bench.row(1_020, 2).watermark(2_000).row(20, 3);
      const none = { unplaced: 0, beyondDataPoints: 0, earlyTicks: 0 };
      expect(bench.engine.counts).toEqual({ ...none, ...counts });
    },
  );

  test('a raw window beyond its bound comes in parts that add up', () => {
    const bounds = {
      ...engineBoundsDefault,
      rawWindowMeasurementsMax: 3,
      deliveryMeasurementsMax: 2,
    };
    const bench = new Bench({ deliveryIntervalMs: 1_000 }, bounds);
    for (let value = 1; value <= 4; value += 1) bench.row(value, value);
    expect(bench.watermark(1_000).take()).toEqual([
      { window: [0, 1_000], values: [1, 2] },
      { window: [0, 1_000], values: [3] },
      { window: [0, 1_000], values: [4] },
    ]);
  });
});
