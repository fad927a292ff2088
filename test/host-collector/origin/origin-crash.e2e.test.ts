import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import type { Delivery } from '../../../common/wire/delivery.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { crashPoints } from '../../../host-collector/origin/crash-point.ts';
import { FrameTable } from '../../support/frame-table.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const rowCount = 60;

async function runOrigin(path: string, crashPoint: string, times: number): Promise<string | null> {
  const child = spawn(
    process.execPath,
    [
      compiledEntry('test/support/origin-process.ts'),
      path,
      crashPoint,
      String(times),
      String(rowCount),
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
  return signal;
}

describe('Origin, killed with SIGKILL', () => {
  test.each(crashPoints)(
    'kill -9 at %s loses nothing and delivers nothing twice',
    async (crashPoint) => {
      using directory = temporaryDirectory();
      const path = join(directory.path, 'collector.db');
      for (const times of [1, 2, 3, 5]) {
        expect(await runOrigin(path, crashPoint, times)).toBe('SIGKILL');
      }
      expect(await runOrigin(path, 'none', 0)).toBeNull();

      const database = openDatabase(path, { readonly: true });
      const table = new FrameTable(openDatabase(path));
      database.close();
      const records = table.records({ vm: vmIdSchema.parse('vm1'), kind: 'data' });
      const deliveries = records.flatMap((record): Delivery[] =>
        record.kind === 'delivery' ? [record.delivery] : [],
      );
      const values = deliveries.flatMap((delivery) =>
        delivery.kind === 'raw' ? delivery.measurements.map(({ value }) => value) : [],
      );
      expect(values).toEqual(Array.from({ length: rowCount }, (_, index) => index + 1));

      const windows = deliveries.flatMap((delivery) =>
        delivery.kind === 'processed'
          ? [[delivery.window?.startMs, delivery.revision, delivery.count]]
          : [],
      );
      const full = windows.slice(1).filter(([, , count]) => count !== 0);
      expect(windows.map(([startMs]) => startMs)).toEqual([
        ...new Set(windows.map(([startMs]) => startMs)),
      ]);
      expect(full.every(([, revision, count]) => revision === 0 && count === 10)).toBe(true);
      expect(windows.length).toBeGreaterThanOrEqual(6);
      expect(records.filter(({ kind }) => kind === 'epoch-opened')).toHaveLength(1);
    },
  );
});
