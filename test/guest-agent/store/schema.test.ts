import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import { storeMigrations } from '../../../guest-agent/store/schema.ts';
import { StoreReader } from '../../../guest-agent/store/store-reader.ts';
import { saveOf, StoreFixture } from '../../support/store-fixture.ts';

/** A database as version 1 left it: three KPI tables, one save that lay aside, a logger, a refused save. */
const golden = join(packageRoot(), 'test/guest-agent/store/golden/unencrypted-v1.db');

describe('schema', () => {
  test('a database of version 1 is brought to the newest version with all that it holds', () => {
    // The golden save was refused in 1970.
    using store = new StoreFixture({ quarantineAgeMaxMs: 1e13 });
    copyFileSync(golden, store.databasePath());
    const { engine } = store;
    const version = store.withDatabase((db) => db.pragma('user_version', { simple: true }));
    expect(version).toBe(storeMigrations.length);
    const reader = new StoreReader(store.directory.path);
    const { rows } = reader.fetch({
      area: 'unencrypted',
      afterRowId: 0,
      throughRowId: engine.frontier('unencrypted'),
      rowsMax: 100,
      bytesMax: 100_000,
    });
    expect(rows.map(({ table, columns, values }) => [table, columns, values])).toEqual([
      ['users', ['column1'], [42]],
      ['web/load', ['cpu', 'mem'], [0.5, null]],
      ['log', ['t', 'v'], [1, 2]],
      ['held', ['column1', 'column2', 'column3', 'column4'], [7, 9_007_199_254_740_993n, 2, 'x']],
    ]);
    expect(reader.quarantine('unencrypted', 10)).toMatchObject([
      { path: 'bad', reason: 'unterminated-quote' },
    ]);
    reader.close();
    expect(store.withDatabase((db) => db.prepare('SELECT * FROM "/held"').all())).toEqual([]);
  });

  test('a database of a newer version is refused untouched, with what to do', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('a', '1')]);
    store.close();
    store.withDatabase((db) => db.pragma(`user_version = ${storeMigrations.length + 1}`));
    const before = readFileSync(store.databasePath());
    expect(() => store.engine).toThrow('use the newer program, or another data directory');
    expect(readFileSync(store.databasePath()).equals(before)).toBe(true);
  });

  test('our own tables begin with "/", KPI tables never do', () => {
    using store = new StoreFixture();
    expect(store.engine.frontier('unencrypted')).toBe(0);
    const names = store.withDatabase((db) =>
      db
        .prepare<[], { name: string }>("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .all()
        .map(({ name }) => name),
    );
    expect(names).toHaveLength(7);
    expect(names.every((name) => name.startsWith('/'))).toBe(true);
  });
});
