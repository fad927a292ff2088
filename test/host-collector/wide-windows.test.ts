import { join } from 'node:path';

import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { silentLog } from '../../common/runtime/log.ts';
import { kpiDataPoint } from '../../common/wire/data-point.ts';
import type { Delivery, Measurement } from '../../common/wire/delivery.ts';
import { encodeFrame } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame } from '../../common/wire/frame.ts';
import {
  formats,
  monitoringSpecifierSchema,
  type MonitoringSpecifier,
} from '../../common/wire/monitoring-specifier.ts';
import { engineBoundsDefault } from '../../host-collector/specifiers/engine-bounds.ts';
import {
  SpecifierEngine,
  type EngineInput,
} from '../../host-collector/specifiers/specifier-engine.ts';
import { PrimaryStore } from '../../primary-site/store/primary-store.ts';
import type { Reading } from '../../primary-site/store/reading-reader.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { dataStream, sampleEpoch } from '../support/sample-frames.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { naiveWindows } from './specifiers/naive-windows.ts';

const baseMs = 1_700_000_000_000;
const widthMs = 1_000;
const windowCount = 40;
const endMs = baseMs + windowCount * widthMs;
const dataPoint = kpiDataPoint('users', 'a');
const bounds = { ...engineBoundsDefault, emptyWindowsMax: 3 };

const row = (atMs: number, value: number): Measurement => ({
  dataPoint,
  timeUs: (baseMs + atMs) * 1_000,
  uncertaintyUs: 0,
  value,
  held: false,
});

const take = (measurement: Measurement): EngineInput => ({
  kind: 'measurements',
  measurements: [measurement],
});

/** What the engine delivers when `late` comes after a silence that closed all windows. */
function deliver(
  specifier: MonitoringSpecifier,
  early: readonly Measurement[],
  late: readonly Measurement[],
): Delivery[] {
  const nowUs = baseMs * 1_000;
  const plan = { descriptorRevision: 1, specifiers: [specifier], latenessMaxMs: 100 };
  const inputs: EngineInput[] = [
    { kind: 'plan', plan, nowUs },
    ...early.map(take),
    { kind: 'watermark', timeUs: nowUs + 1 },
    // The silence closes everything; the guest's own watermark stands still, so that all can be revised.
    { kind: 'time', nowUs: (endMs + 200) * 1_000 },
    ...late.map(take),
    { kind: 'time', nowUs: (endMs + 400) * 1_000 },
  ];
  const deliveries: Delivery[] = [];
  const engine = new SpecifierEngine(bounds);
  for (const input of inputs) engine.apply(input, (delivery) => void deliveries.push(delivery));
  return deliveries;
}

/** Each delivery as a frame of its own. */
function framesOf(deliveries: readonly Delivery[], vm: string): EncodedFrame[] {
  return deliveries.map((delivery, index) => {
    const header = {
      stream: dataStream(vm),
      epoch: sampleEpoch,
      seq: index + 1,
      previousHash: new Uint8Array(32),
      producedAtUs: baseMs * 1_000,
    };
    return { header, bytes: encodeFrame({ header, records: [{ kind: 'delivery', delivery }] }) };
  });
}

const isWide = ({ window }: Reading): boolean =>
  window !== null && window.endMs - window.startMs > widthMs;

/** The count of each window: its own reading's, else that of the run of empty windows that it is in. */
function countByWindow(readings: readonly Reading[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { window, count } of readings.filter((reading) => isWide(reading))) {
    expect(count).toBe(0);
    for (let ms = window?.startMs ?? 0; ms < (window?.endMs ?? 0); ms += widthMs) {
      expect(counts.has(ms), 'runs do not overlap').toBe(false);
      counts.set(ms, 0);
    }
  }
  const narrow = readings.filter((reading) => !isWide(reading));
  expect(new Set(narrow.map(({ window }) => window?.startMs)).size).toBe(narrow.length);
  for (const { window, count } of narrow) counts.set(window?.startMs ?? 0, count ?? 0);
  return counts;
}

const rows = fc.array(
  fc
    .tuple(
      fc.oneof(
        fc.nat({ max: windowCount * widthMs - 1 }),
        // Beginnings of windows, the first after the first one among them.
        fc.nat({ max: windowCount - 1 }).map((index) => index * widthMs),
        fc.integer({ min: widthMs, max: 2 * widthMs - 1 }),
      ),
      fc.nat({ max: 9 }),
    )
    .map(([atMs, value]) => row(atMs, value)),
  { maxLength: 4 },
);

test('a late row into a run of empty windows revises its own window, and the reader keeps the run and the window, whatever order they come in', async () => {
  using directory = temporaryDirectory();
  const store = new PrimaryStore(
    { clock: new ManualClock(baseMs * 1_000), log: silentLog },
    { path: join(directory.path, 'store.db'), seriesMax: 100_000 },
  );
  await store.start();
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...formats),
      rows,
      rows,
      fc.boolean(),
      async (format, early, late, isReversed) => {
        runs += 1;
        const vm = `vm${runs}`;
        const specifier = monitoringSpecifierSchema.parse({
          id: 's',
          dataPoints: dataPoint,
          format,
          deliveryIntervalMs: widthMs,
        });
        const frames = framesOf(deliver(specifier, early, late), vm);
        await store.store(isReversed ? frames.toReversed() : frames);
        const { readings } = store.reader.query({ pattern: '**', vm }, 1_000);
        const all = [...early, ...late];
        const wanted = naiveWindows(specifier, all, baseMs, endMs);
        const isRaw = format === 'raw';
        // A raw reading is a row; of processed ones there is one a window, or one a run.
        expect(isRaw ? readings.map(({ timeUs }) => timeUs) : countByWindow(readings)).toEqual(
          isRaw
            ? wanted.flatMap(({ timesUs }) => timesUs)
            : new Map(wanted.map(({ startMs, values }) => [startMs, values.length])),
        );
      },
    ),
    { numRuns: 150 },
  );
  await store.stop();
});
