import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';
import { z } from 'zod';

import { ControlClient } from '../../common/control/control-client.ts';
import { silentLog } from '../../common/runtime/log.ts';
import type { Value } from '../../common/wire/value.ts';
import {
  buildHostCollector,
  type HostCollector,
} from '../../host-collector/build-host-collector.ts';
import { hostCollectorConfigSchema } from '../../host-collector/config.ts';
import { buildPrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { startGuest } from '../support/channel-fixture.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/external-broker.ts';
import { kpiSeries, type SeriesStep } from '../support/kpi-series.ts';
import { MemoryRowStore } from '../support/memory-row-store.ts';
import { describeUnless, programObstacle } from '../support/requirements.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const timeout = { timeoutMs: 30_000 };
const sentinelMs = 1_000;
const oraclePath = fileURLToPath(new URL('../support/delivery_oracle.py', import.meta.url));
const processedFormats = ['min', 'max', 'mean', 'median'] as const;

const dwell = { hysteresis: 5, minimumDurationMs: 400 };
const predicates = {
  below: { condition: 'below', threshold: 40, hysteresis: 10 },
  'below-edge': { condition: 'below', threshold: 40, kind: 'edge', ...dwell },
  above: { condition: 'above', threshold: 60, minimumDurationMs: 300 },
  'above-edge': { condition: 'above', threshold: 60, kind: 'edge', ...dwell },
  'above-entering': { condition: 'above', threshold: 60, kind: 'edge', edges: 'entering' },
  'above-leaving': { condition: 'above', threshold: 60, kind: 'edge', edges: 'leaving' },
  outside: { condition: 'outside', lower: 20, upper: 80, hysteresis: 5 },
  'outside-edge': { condition: 'outside', lower: 20, upper: 80, kind: 'edge', ...dwell },
  changed: { condition: 'changed-by', delta: 7.5 },
  'changed-at-all': { condition: 'changed-by', delta: 0 },
} as const;

const specifiers: readonly Record<string, unknown>[] = [
  { id: 'every', dataPoints: 'kpi/**' },
  { id: 'once-mean', dataPoints: 'kpi/**', format: 'mean' },
  { id: 'once-tick', dataPoints: 'kpi/cpu/ratio', monitoringIntervalMs: 250 },
  { id: 'once-tick-max', dataPoints: 'kpi/cpu/ratio', monitoringIntervalMs: 700, format: 'max' },
  ...[0, 250, 300, 1_500].flatMap((monitoringIntervalMs) =>
    (['raw', ...processedFormats] as const).map((format) => ({
      id: `${format}-${monitoringIntervalMs}`,
      dataPoints: 'kpi/**',
      format,
      monitoringIntervalMs,
      deliveryIntervalMs: 1_000,
    })),
  ),
  ...Object.entries(predicates).flatMap(([name, predicate]) => [
    { id: `once-${name}`, dataPoints: 'kpi/**', predicate },
    { id: `raw-${name}`, dataPoints: 'kpi/**', deliveryIntervalMs: 500, predicate },
    {
      id: `median-${name}`,
      dataPoints: 'kpi/**',
      format: 'median',
      deliveryIntervalMs: 500,
      predicate,
    },
  ]),
  // Its windows close last, so what it delivered tells that everything before has been.
  { id: 'sentinel', dataPoints: 'kpi/cpu/ratio', format: 'min', deliveryIntervalMs: sentinelMs },
];

const jsonValueSchema = z.union([
  z.number(),
  z.string(),
  z.null(),
  z.strictObject({ integer: z.string() }),
]);
const readingsSchema = z.array(
  z.object({
    position: z.int(),
    dataPoint: z.string(),
    timeUs: z.int(),
    uncertaintyUs: z.int().nullable(),
    value: jsonValueSchema,
    specifierId: z.string(),
    window: z.object({ startMs: z.int(), endMs: z.int() }).nullable(),
    revision: z.int(),
    count: z.int().nullable(),
    skippedCount: z.int().nullable(),
    predicateState: z.string().nullable(),
  }),
);
type Reading = z.output<typeof readingsSchema>[number];
const expectedSchema = z.record(
  z.string(),
  z.record(z.string(), z.array(z.array(jsonValueSchema))),
);
type Expected = z.output<typeof expectedSchema>;

/** What the oracle gets: what came, and what the guest said, with the times that the collector gave them. */
type OracleEvent = ['row', string, number, string, string] | ['watermark', number];

describeUnless(programObstacle('python3', 'python3'), 'deliveries against an oracle', () => {
  test.each([1, 20_261_121])(
    'what the reader has in the end equals a calculation over all rows, seed %i',
    { timeout: 120_000 },
    async (seed) => {
      const { steps, readings, untilMs, revisedCount } = await deliver(seed);
      const bySpecifier = groupBy(readings, ({ specifierId }) => specifierId);
      const events = correctedEvents(steps, bySpecifier.get('every') ?? []);
      const expected = askOracle({ specifiers, events, until_us: untilMs * 1_000 });
      for (const specifier of specifiers) {
        const id = String(specifier['id']);
        const byPoint = groupBy(bySpecifier.get(id) ?? [], ({ dataPoint }) => dataPoint);
        const wanted = expected[id] ?? {};
        for (const dataPoint of new Set([...byPoint.keys(), ...Object.keys(wanted)])) {
          const own = byPoint.get(dataPoint) ?? [];
          const [got, want] = comparable(specifier, own, wanted[dataPoint] ?? [], untilMs);
          expect.soft(got, `${id} of ${dataPoint}`).toEqual(want);
        }
      }
      expect(revisedCount).toBeGreaterThan(100);
    },
  );
});

/** Sends a series through guest channel, collector, broker and primary site, the collector restarted in the middle. */
async function deliver(seed: number): Promise<{
  readonly steps: readonly SeriesStep[];
  readonly readings: readonly Reading[];
  readonly untilMs: number;
  readonly revisedCount: number;
}> {
  using directory = temporaryDirectory();
  const channel = `unix:${join(directory.path, 'guest.sock')}`;
  const mqttPort = await freePort();
  const startUs = Math.floor(Date.now() / 1_000 - 1_200) * 1_000_000 + 123_457;
  const steps = kpiSeries(seed, { startUs, stepCount: 14, stepRows: 150 });
  const store = new MemoryRowStore();
  store.watermarkTimeUs = startUs - 5_000_000;
  const guest = await startGuest(store, { address: channel });
  const startCollector = async (): Promise<HostCollector> => {
    const config = hostCollectorConfigSchema.parse({
      dataDirectory: join(directory.path, 'collector'),
      mqttPort,
      synchronous: 'NORMAL',
      revisionHorizonMs: 3_600_000,
      closedWindowsMax: 10_000,
    });
    const built = buildHostCollector(config, { log: silentLog });
    await built.service.start();
    return built;
  };
  let collector = await startCollector();
  await collector.vms.add({
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: 'vm1',
    guest: { channel },
    monitoring: { latenessMaxMs: 7_200_000, specifiers },
  });
  const controlSocket = join(directory.path, 'reader.sock');
  const site = buildPrimarySite(
    primarySiteConfigSchema.parse({
      dataDirectory: join(directory.path, 'reader'),
      controlSocket,
      mqttUrl: `mqtt://127.0.0.1:${mqttPort}`,
      jsonTopics: false,
    }),
  );
  await site.service.start();
  const client = new ControlClient({
    socketPath: controlSocket,
    peer: 'reader',
    startCommand: 'none',
  });
  const query = async (pattern: string, sinceUs: number): Promise<readonly Reading[]> => {
    const path = `/v1/query?limit=1000000&pattern=${encodeURIComponent(pattern)}&sinceUs=${sinceUs}`;
    const answer = await client.get(path, z.object({ readings: readingsSchema }));
    return answer.readings;
  };
  const isClosed = async (endMs: number): Promise<boolean> =>
    (await query('kpi/cpu/ratio', (endMs - sentinelMs) * 1_000)).some(
      ({ specifierId, window }) => specifierId === 'sentinel' && window?.endMs === endMs,
    );
  for (const [index, { rows, watermarkUs }] of steps.entries()) {
    for (const { savedAtUs, ...row } of rows) store.publish([row], 'unencrypted', savedAtUs);
    store.watermarkTimeUs = watermarkUs;
    const goalMs = Math.floor(watermarkUs / 1_000 / sentinelMs) * sentinelMs;
    await eventually(() => isClosed(goalMs), timeout);
    if (index === Math.floor(steps.length / 3)) {
      await collector.service.stop();
      collector = await startCollector();
    }
  }
  const readings = await query('**', 0);
  await site.service.stop();
  await collector.service.stop();
  await guest.stop();
  const watermarkUs = steps.at(-1)?.watermarkUs ?? 0;
  return {
    steps,
    readings: readings.toSorted((left, right) => left.position - right.position),
    // The last window may still wait for the tick that reaches beyond it.
    untilMs: Math.floor(watermarkUs / 1_000_000 - 2) * 1_000,
    revisedCount: readings.filter(({ revision }) => revision > 0).length,
  };
}

/** Rows in the order of arrival with the time that the collector gave each, which the offset's uncertainty must cover. */
function correctedEvents(
  steps: readonly SeriesStep[],
  arrived: readonly Reading[],
): readonly OracleEvent[] {
  const next = new Map<string, Iterator<Reading>>();
  for (const [dataPoint, own] of groupBy(arrived, (reading) => reading.dataPoint)) {
    next.set(dataPoint, own.values());
  }
  const events = steps.flatMap(({ rows, watermarkUs }): OracleEvent[] => [
    ...rows.flatMap(({ table, columns, values, savedAtUs }) =>
      columns.map((column, index): OracleEvent => {
        const dataPoint = `kpi/${table}/${column}`;
        const value = values[index] ?? null;
        const reading: Reading | undefined = next.get(dataPoint)?.next().value;
        expect(reading?.value).toEqual(asJson(value));
        const timeUs = reading?.timeUs ?? 0;
        expect(Math.abs(timeUs - savedAtUs)).toBeLessThanOrEqual(reading?.uncertaintyUs ?? 0);
        return ['row', dataPoint, timeUs, ...asText(value)];
      }),
    ),
    ['watermark', watermarkUs],
  ]);
  for (const iterator of next.values()) expect(iterator.next().done).toBe(true);
  return events;
}

function asJson(value: Value): unknown {
  return typeof value === 'bigint' ? { integer: String(value) } : value;
}

function asText(value: Value): [kind: string, text: string] {
  if (typeof value === 'bigint') return ['integer', String(value)];
  if (typeof value === 'number') return ['float', String(value)];
  return typeof value === 'string' ? ['text', value] : ['null', ''];
}

function askOracle(task: object): Expected {
  const { status, stdout, stderr } = spawnSync('python3', [oraclePath], {
    input: JSON.stringify(task),
    encoding: 'utf8',
    maxBuffer: 256 * 1_024 * 1_024,
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return expectedSchema.parse(JSON.parse(stdout));
}

/** What is there and what is wanted of one data point, of all that was complete when the series ended. */
function comparable(
  specifier: Readonly<Record<string, unknown>>,
  readings: readonly Reading[],
  wanted: readonly (readonly unknown[])[],
  untilMs: number,
): readonly [got: unknown, wanted: unknown] {
  const isRaw = specifier['format'] === undefined || specifier['format'] === 'raw';
  if (specifier['deliveryIntervalMs'] === undefined) {
    const rows = readings.map(({ timeUs, value, count, skippedCount, predicateState }) =>
      isRaw
        ? [timeUs, value, predicateState]
        : [timeUs, value, count, skippedCount, predicateState],
    );
    const isComplete = ([timeUs]: readonly unknown[]): boolean => Number(timeUs) < untilMs * 1_000;
    return [rows.filter(isComplete), wanted.filter(isComplete)];
  }
  if (isRaw) {
    const closed = readings.filter(({ window }) => (window?.endMs ?? 0) <= untilMs);
    return [sorted(closed.map(({ timeUs, value }) => [timeUs, value])), sorted(wanted)];
  }
  const firstMs = Number(wanted[0]?.[0] ?? 0);
  const got = windowsOf(readings, Number(specifier['deliveryIntervalMs']), untilMs)
    // Windows before the first row may be there, empty.
    .filter(([startMs, , count]) => Number(startMs) >= firstMs || count !== 0);
  const byStart = new Map(wanted.map((window) => [window[0], window]));
  return [got.map((window) => roundedAs(window, byStart.get(window[0]))), wanted];
}

/** One entry a window. A wide empty reading stands for many; a reading that late rows brought comes before it. */
function windowsOf(
  readings: readonly Reading[],
  widthMs: number,
  untilMs: number,
): readonly (readonly unknown[])[] {
  const windows = new Map<number, readonly unknown[]>();
  const isWide = ({ window }: Reading): boolean =>
    window !== null && window.endMs - window.startMs > widthMs;
  for (const reading of [...readings.filter((item) => !isWide(item)), ...readings.filter(isWide)]) {
    const { window, value, count, skippedCount, predicateState } = reading;
    const { startMs, endMs } = window ?? { startMs: 0, endMs: 0 };
    for (let ms = startMs; ms < endMs && ms + widthMs <= untilMs; ms += widthMs) {
      const entry = [ms, value, count, skippedCount, predicateState];
      // A second narrow one would be a window that stands twice.
      if (!windows.has(ms)) windows.set(ms, entry);
      else if (!isWide(reading) || count !== 0) windows.set(ms, ['twice', ...entry]);
    }
  }
  return [...windows.values()].toSorted((left, right) => Number(left[0]) - Number(right[0]));
}

/** A mean may be rounded twice: within two units in the last place it is the wanted one. */
function roundedAs(window: readonly unknown[], wanted: readonly unknown[] | undefined): unknown {
  const [startMs, value, ...rest] = window;
  const target = wanted?.[1];
  if (typeof value !== 'number' || typeof target !== 'number') return window;
  const roundingMax = 2 * Math.max(Number.MIN_VALUE, Math.abs(target) * Number.EPSILON);
  return [startMs, Math.abs(value - target) <= roundingMax ? target : value, ...rest];
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

function sorted(rows: readonly (readonly unknown[])[]): string[] {
  return rows.map((row) => JSON.stringify(row)).toSorted();
}
