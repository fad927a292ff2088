import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import { vmDescriptorSchema } from '../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../host-collector/origin/collector-schema.ts';
import { Origin } from '../../host-collector/origin/origin.ts';
import { StoreMark } from '../../host-collector/origin/store-mark.ts';
import type { GuestRow } from '../../host-collector/vm/guest-listener.ts';
import { FrameTable } from './frame-table.ts';

/*
 * A process that feeds rows first+1.. of a pretended guest store to an origin, in batches of three, until `rowCount`,
 * and kills itself with SIGKILL at the n-th time that it passes a crash point.
 *   argv: database path, crash point or `none`, times, rowCount
 */
const [path = '', crashPoint = '', times = '', rowCount = ''] = process.argv.slice(2);
const baseUs = 1_700_000_000_000_000;

const database = openDatabase(path, { synchronous: 'NORMAL' });
migrateCollector(database);
let passedCount = 0;
const origin = new Origin({
  database,
  appender: new FrameTable(database),
  forwarder: { forward: () => {} },
  clock: new SystemClock(),
  log: silentLog,
  mark: new StoreMark({ database, random: new SystemRandom(), log: silentLog }, `${path}.mark`),
  atCrashPoint: (point) => {
    if (point !== crashPoint) return;
    passedCount += 1;
    if (passedCount === Number(times)) process.kill(process.pid, 'SIGKILL');
  },
});
const descriptor = vmDescriptorSchema.parse({
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  monitoring: {
    specifiers: [
      { id: 'each', dataPoints: 'kpi/**' },
      { id: 'windows', dataPoints: 'kpi/**', format: 'mean', deliveryIntervalMs: 10 },
    ],
  },
});
await origin.start();
origin.add(descriptor);
const listener = origin.guestListener(descriptor.id);
if (listener === undefined) throw new Error('the VM was added');
listener.connected();
listener.generation('unencrypted', 'u');
for (;;) {
  const after = listener.cursor('unencrypted')?.rowId ?? 0;
  if (after >= Number(rowCount)) break;
  const rows = Array.from({ length: 3 }, (_, index) => row(after + index + 1));
  await listener.rows({
    area: 'unencrypted',
    generation: 'u',
    rows,
    lost: [],
    throughRowId: after + 3,
  });
  listener.watermark(baseUs + (after + 3) * 1_000);
}
await origin.stop();
database.close();

function row(rowId: number): GuestRow {
  const savedAtUs = baseUs + rowId * 1_000;
  return { area: 'unencrypted', table: 'users', rowId, savedAtUs, columns: ['n'], values: [rowId] };
}
