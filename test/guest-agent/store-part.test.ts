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
    },
  );
  await store.start();
  await store.registerTables([{ area: 'unencrypted', tables: '**' }]);
  return { store, failures };
}
