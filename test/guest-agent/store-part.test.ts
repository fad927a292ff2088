import { MessageChannel } from 'node:worker_threads';

import { describe, expect, test } from 'vitest';

import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { StorePart } from '../../guest-agent/store-part.ts';
import { defaultStoreOptions } from '../../guest-agent/store/store-options.ts';
import { StoreThreadClient } from '../../guest-agent/store/store-rings.ts';
import { eventually } from '../support/eventually.ts';
import { saveOf } from '../support/store-fixture.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const saveCount = 2_000;
const rememberedTablesMax = 100;
const fetchLimits = { rowsMax: 10_000, bytesMax: 2 ** 24 };

describe('StorePart', () => {
  test('no head is told before the publications below it: rows are never passed over', async () => {
    using directory = temporaryDirectory();
    const { store, failures } = await startStore(directory.path);
    let announcedRowId = 0;
    store.onPublished(({ throughRowId }) => {
      announcedRowId = throughRowId;
    });
    const client = new StoreThreadClient(store.memory);
    const fetched: number[] = [];
    let cursor = 0;
    let submittedCount = 0;
    // Never yields to the event loop, as a busy main thread does: what it is told must be complete all the same.
    while (cursor < saveCount) {
      if (submittedCount < saveCount) {
        submittedCount += 1;
        const table = `kpi-${submittedCount % 7}`;
        const file = submittedCount % 7;
        client.submit(
          saveOf(table, `${submittedCount}\n`, { token: null, handle: submittedCount, file }),
        );
      }
      client.drain(() => {});
      const head = store.head('unencrypted');
      expect(announcedRowId).toBeGreaterThanOrEqual(head);
      const batch = store.fetch('unencrypted', cursor, fetchLimits, () => true);
      fetched.push(...batch.rows.map(({ rowId }) => rowId));
      cursor = batch.throughRowId;
    }
    expect(fetched).toEqual(Array.from({ length: saveCount }, (_, index) => index + 1));
    await store.stop();
    expect(failures).toEqual([]);
  });

  test('more tables than are remembered: a host that lags behind still gets every row once, in order', async () => {
    using directory = temporaryDirectory();
    const { store, failures } = await startStore(directory.path);
    const client = new StoreThreadClient(store.memory);
    const tableCount = rememberedTablesMax + 20;
    for (let table = 1; table <= tableCount; table += 1) {
      const over = { token: null, handle: table, file: table };
      client.submit(saveOf(`kpi-${table}`, `${table}\n`, over));
      client.drain(() => {});
    }
    await eventually(() => store.head('unencrypted') === tableCount, { timeoutMs: 15_000 });
    // What was remembered before the overflow is gone, and so is what the overflow itself has forgotten.
    expect(rowIdsAfter(store, 0)).toEqual(rowIdsBetween(1, tableCount));
    const overflowRowId = rememberedTablesMax + 1;
    expect(rowIdsAfter(store, overflowRowId - 2)).toEqual(
      rowIdsBetween(overflowRowId - 1, tableCount),
    );
    expect(rowIdsAfter(store, overflowRowId)).toEqual(rowIdsBetween(overflowRowId + 1, tableCount));
    client.submit(saveOf('kpi-1', '1\n', { token: null, handle: 1, file: 1 }));
    await eventually(() => store.head('unencrypted') === tableCount + 1, { timeoutMs: 5_000 });
    expect(rowIdsAfter(store, tableCount)).toEqual([tableCount + 1]);
    await store.stop();
    expect(failures).toEqual([]);
  });

  test('a new file made with O_EXCL that is renamed moves its row: the host gets it and goes on', async () => {
    using directory = temporaryDirectory();
    const { store, failures } = await startStore(directory.path);
    const client = new StoreThreadClient(store.memory);
    client.submit(saveOf('copy', '1\n', { token: null, holdsNewName: true }));
    // Overtaken and heard of before it moves: the name was announced.
    client.submit(saveOf('other', '2\n', { token: null, handle: 2, file: 3 }));
    await eventually(() => store.head('unencrypted') > 0, { timeoutMs: 5_000 });
    client.submit({
      kind: 'rename',
      token: null,
      file: 2,
      from: { area: 'unencrypted', path: 'copy' },
      to: { area: 'unencrypted', path: 'kpi' },
      replaced: null,
      saves: true,
      savedAtUs: 2_000,
    });
    client.submit(saveOf('other', '3\n', { token: null, handle: 2, file: 3 }));
    const tables: string[] = [];
    let cursor = 0;
    await eventually(
      () => {
        const batch = store.fetch('unencrypted', cursor, fetchLimits, () => true);
        tables.push(...batch.rows.map(({ table }) => table));
        cursor = batch.throughRowId;
        return tables.length === 3;
      },
      { timeoutMs: 5_000 },
    );
    expect(tables.toSorted()).toEqual(['kpi', 'other', 'other']);
    await store.stop();
    expect(failures).toEqual([]);
  });
});

function rowIdsBetween(from: number, through: number): readonly number[] {
  return Array.from({ length: through - from + 1 }, (_, index) => from + index);
}

/** What a host gets that has everything up to a row id. */
function rowIdsAfter(store: StorePart, afterRowId: number): readonly number[] {
  const rowIds: number[] = [];
  for (let cursor = afterRowId, hasMore = true; hasMore;) {
    const batch = store.fetch('unencrypted', cursor, fetchLimits, () => true);
    rowIds.push(...batch.rows.map(({ rowId }) => rowId));
    ({ throughRowId: cursor, hasMore } = batch);
  }
  return rowIds;
}

async function startStore(
  directory: string,
): Promise<{ readonly store: StorePart; readonly failures: readonly unknown[] }> {
  const failures: unknown[] = [];
  const store = new StorePart(
    {
      clock: new SystemClock(),
      log: silentLog,
      onFailure: (error) => void failures.push(error),
      requestStop: (reason) => void failures.push(reason),
    },
    {
      store: { ...defaultStoreOptions, synchronous: 'OFF', directory },
      replyDescriptor: null,
      replyPort: new MessageChannel().port1,
      logLevel: 'silent',
      rememberedTablesMax,
    },
  );
  await store.start();
  await store.registerTables([{ area: 'unencrypted', tables: '**' }]);
  return { store, failures };
}
