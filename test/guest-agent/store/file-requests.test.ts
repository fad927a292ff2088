import { describe, expect, test } from 'vitest';

import { DatabaseContentReader } from '../../../guest-agent/store/database-content-reader.ts';
import type { RenameRequest } from '../../../guest-agent/store/store-request.ts';
import { plainAttributes, saveOf, StoreFixture } from '../../support/store-fixture.ts';

function renameOf(from: string, to: string, over: Partial<RenameRequest> = {}): RenameRequest {
  return {
    kind: 'rename',
    token: 1n,
    file: 2,
    from: { area: 'unencrypted', path: from },
    to: { area: 'unencrypted', path: to },
    replaced: null,
    saves: true,
    savedAtUs: 5_000,
    ...over,
  };
}

function contentOf(store: StoreFixture, file: number): string {
  const reader = new DatabaseContentReader(store.directory.path);
  try {
    return Buffer.from(reader.content('unencrypted', file)).toString();
  } finally {
    reader.close();
  }
}

describe('StoreEngine: files', () => {
  test('renaming onto a KPI name is a save under that name; of a growing file only the new lines', () => {
    using store = new StoreFixture();
    store.engine.apply([
      saveOf('kpi', 'a,b\n1,2\n', { file: 3, handle: 3 }),
      saveOf('copy', 'a,b\n1,2\n3,4\n'),
    ]);
    store.engine.apply([renameOf('copy', 'kpi', { replaced: 3 })]);
    expect(store.rows('kpi')).toEqual([
      { row_id: 1, saved_at_us: 1_000, a: 1, b: 2 },
      { row_id: 4, saved_at_us: 5_000, a: 3, b: 4 },
    ]);
    expect(contentOf(store, 2)).toBe('a,b\n1,2\n3,4\n');
    expect(contentOf(store, 3)).toBe('');
  });

  test('renaming onto a rotation name never is a save; what is held stays with the old name', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('log', '1\n', { publishes: false })]);
    store.engine.apply([renameOf('log', 'log.1', { saves: false })]);
    expect(store.rows('log')).toHaveLength(1);
    expect(store.engine.frontier('unencrypted')).toBe(1);
    expect(() => store.rows('log.1')).toThrow(/no such table/);
  });

  test('a temporary file that was renamed onto its name is one save and ends the file that was there', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('kpi', '1\n', { file: 3, handle: 3 })]);
    store.engine.apply([saveOf('kpi', '2\n', { file: 4, handle: 0, replaced: 3 })]);
    expect(store.rows('kpi').map(({ column1 }) => column1)).toEqual([1, 2]);
    expect(store.engine.frontier('unencrypted')).toBe(2);
    expect(contentOf(store, 3)).toBe('');
    expect(contentOf(store, 4)).toBe('2\n');
  });

  test('unlink keeps the table and publishes what is held', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('kpi', '1\n', { publishes: false })]);
    const location = { area: 'unencrypted', path: 'kpi' } as const;
    store.engine.apply([{ kind: 'remove', token: 1n, file: 2, location }]);
    expect(store.engine.frontier('unencrypted')).toBe(1);
    store.engine.apply([saveOf('kpi', '2\n', { filePath: null })]);
    expect(store.rows('kpi')).toHaveLength(2);
    expect(contentOf(store, 2)).toBe('');
  });

  test('a truncation is no save, but readers see it', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('kpi', '12\n')]);
    const location = { area: 'unencrypted', path: 'kpi' } as const;
    const put = { kind: 'put-file', file: 2, location, attributes: plainAttributes } as const;
    store.engine.apply([{ ...put, truncatedToBytes: 1 }]);
    expect(contentOf(store, 2)).toBe('1');
    store.engine.apply([{ ...put, truncatedToBytes: 3 }]);
    expect(contentOf(store, 2)).toBe('1\0\0');
    expect(store.rows('kpi')).toHaveLength(1);
  });

  test('triggers collect: a publication names the registered tables that have new rows', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('old', '1')]);
    store.engine.takeEvents();
    store.engine.watch('unencrypted', ['web/**', 'old']);
    store.engine.apply([
      saveOf('web/load', '1', { file: 3, handle: 3 }),
      saveOf('other', '1', { file: 4, handle: 4 }),
      saveOf('old', '1', { handle: 5, publishes: false }),
    ]);
    expect(store.engine.takeEvents()).toMatchObject([{ throughRowId: 3, tables: ['web/load'] }]);
    store.engine.apply([{ kind: 'publish', token: 3n, handle: 5 }]);
    expect(store.engine.takeEvents()).toMatchObject([{ throughRowId: 4, tables: ['old'] }]);
    // "Real CREATE TEMP TRIGGERs on the agent's connection": no other connection sees or fires them.
    expect(
      store.withDatabase((db) =>
        db.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").all(),
      ),
    ).toEqual([]);
    store.engine.watch('unencrypted', []);
    store.engine.apply([saveOf('old', '1')]);
    expect(store.engine.takeEvents()).toMatchObject([{ tables: [] }]);
  });

  test('a batch over both areas answers in its own order', () => {
    using store = new StoreFixture();
    const outcomes = store.engine.apply([
      saveOf('a', '"', { file: 3, handle: 3 }),
      saveOf('b', '"', { file: 4, handle: 4, area: 'encrypted' }),
      saveOf('c', '1', { file: 5, handle: 5 }),
    ]);
    expect(outcomes.map(({ file, result }) => [file, result])).toEqual([
      [3, -22],
      [4, 0],
      [5, 0],
    ]);
  });

  test('a save just older than a promised watermark is stamped behind it; a step of the clock is left alone', () => {
    using store = new StoreFixture();
    store.engine.promiseWatermark(10_000_000);
    store.engine.apply([saveOf('a', '1', { savedAtUs: 9_999_000 })]);
    store.engine.apply([saveOf('a', '2', { savedAtUs: 5_000_000 })]);
    expect(store.rows('a').map(({ saved_at_us: savedAtUs }) => savedAtUs)).toEqual([
      10_000_001, 5_000_000,
    ]);
  });
});
