import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import { vmDescriptorSchema } from '../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../host-collector/origin/collector-schema.ts';
import { Origin } from '../../host-collector/origin/origin.ts';
import type { GuestRow } from '../../host-collector/vm/guest-listener.ts';
import { temporaryDirectory } from './temporary-directory.ts';

/*
 * What a row of ten columns costs from the listener to the committed frame: microseconds of one core, for a few sets
 * of specifiers. Prints one JSON line for each.
 *   argv: rows in all (default 20000), rows in a batch (default 256)
 */
const rowCount = Number(process.argv[2] ?? 20_000);
const batchRows = Number(process.argv[3] ?? 256);
const columns = Array.from({ length: 10 }, (_, index) => `column${index + 1}`);
const cases = {
  none: [],
  'raw at once': [{ id: 'a', dataPoints: 'kpi/**' }],
  'mean each second': [
    { id: 'a', dataPoints: 'kpi/**', format: 'mean', deliveryIntervalMs: 1_000 },
  ],
  'raw at once, median each second': [
    { id: 'a', dataPoints: 'kpi/**' },
    { id: 'b', dataPoints: 'kpi/**', format: 'median', deliveryIntervalMs: 1_000 },
  ],
  'raw each second': [{ id: 'a', dataPoints: 'kpi/**', deliveryIntervalMs: 1_000 }],
};

for (const [name, specifiers] of Object.entries(cases)) {
  using directory = temporaryDirectory();
  const database = openDatabase(`${directory.path}/collector.db`);
  const clock = new SystemClock();
  migrateStreamLog(database);
  migrateCollector(database);
  const appender = new StreamLog({ database, clock, random: new SystemRandom() });
  const origin = new Origin({
    database,
    appender,
    forwarder: { forward: () => {} },
    clock,
    log: silentLog,
  });
  await origin.start();
  const descriptor = vmDescriptorSchema.parse({
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: 'bench',
    monitoring: { specifiers },
  });
  origin.add(descriptor);
  const listener = origin.guestListener(descriptor.id);
  if (listener === undefined) throw new Error('the VM was added');
  const baseUs = clock.wallUs();
  const startedCpu = process.cpuUsage();
  const startedMs = performance.now();
  for (let from = 0; from < rowCount; from += batchRows) {
    const rows = Array.from({ length: batchRows }, (_, index): GuestRow => {
      const rowId = from + index + 1;
      const values = columns.map((_column, column) => rowId * 1.25 + column);
      const savedAtUs = baseUs + rowId * 200;
      return { area: 'unencrypted', table: 'users', rowId, savedAtUs, columns, values };
    });
    const throughRowId = from + batchRows;
    await listener.rows({ area: 'unencrypted', generation: 'u', rows, lost: [], throughRowId });
    listener.watermark(baseUs + throughRowId * 200);
  }
  const elapsedMs = performance.now() - startedMs;
  const cpu = process.cpuUsage(startedCpu);
  await origin.stop();
  database.close();
  const usPerRow = (cpu.user + cpu.system) / rowCount;
  const measurementsPerSecond = Math.round((rowCount * columns.length * 1_000) / elapsedMs);
  console.log(
    JSON.stringify({ name, usPerRow: Math.round(usPerRow * 10) / 10, measurementsPerSecond }),
  );
}
