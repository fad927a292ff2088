import { readFileSync } from 'node:fs';
import { constants } from 'node:os';

import { describe, expect, test } from 'vitest';

import { tableNames } from '../../../guest-agent/store/kpi-tables.ts';
import { saveOf, StoreFixture } from '../../support/store-fixture.ts';

const { EAGAIN, EFBIG, EINVAL } = constants.errno;

/** Frames that end a transaction in a WAL: those that state the database's size (SQLite file format, 4.1). */
function commitCount(walPath: string): number {
  const wal = readFileSync(walPath);
  const headerBytes = 32;
  const frameBytes = 24 + wal.readUInt32BE(8);
  const salts = wal.subarray(16, 24);
  let count = 0;
  for (let at = headerBytes; at + frameBytes <= wal.length; at += frameBytes) {
    const isOfThisWal = wal.subarray(at + 8, at + 16).equals(salts);
    if (isOfThisWal && wal.readUInt32BE(at + 4) > 0) count += 1;
  }
  return count;
}

describe('StoreEngine: saves', () => {
  test('a save is one row in a table named exactly like the path, with row_id and saved_at_us', () => {
    using store = new StoreFixture();
    const [outcome] = store.engine.apply([saveOf('web/a "b".csv', '42\n', { savedAtUs: 77 })]);
    expect(outcome).toMatchObject({ kind: 'save', result: 0, sizeBytes: 3 });
    expect(store.withDatabase((db) => db.prepare('SELECT * FROM "web/a ""b"".csv"').all())).toEqual(
      [{ row_id: 1, saved_at_us: 77, column1: 42 }],
    );
  });

  test('columns have no declared type and are added when new labels come, found in any case', () => {
    using store = new StoreFixture();
    store.engine.apply([
      saveOf('m', 'cpu,mem\n0.5,10\n'),
      saveOf('m', 'CPU,disk\nhigh,\n', { file: 2 }),
    ]);
    expect(store.rows('m')).toEqual([
      { row_id: 1, saved_at_us: 1_000, cpu: 0.5, mem: 10, disk: null },
      { row_id: 2, saved_at_us: 1_000, cpu: 'high', mem: null, disk: null },
    ]);
  });

  test('encrypted/ files are opaque bytes, any bytes', () => {
    using store = new StoreFixture();
    const bytes = Buffer.from([0, 255, 10, 0]);
    store.engine.apply([saveOf('x', bytes, { area: 'encrypted' })]);
    expect(store.rows('x', 'encrypted')).toEqual([
      { row_id: 1, saved_at_us: 1_000, content: bytes },
    ]);
  });

  test("one bad save can't fail another: EINVAL and EFBIG go to a quarantine with the reason", () => {
    using store = new StoreFixture({ fileBytesMax: 20 });
    const outcomes = store.engine.apply([
      saveOf('good', '1', { handle: 1, file: 1 }),
      saveOf('bad', '"1', { handle: 2, file: 2 }),
      saveOf('big', '1'.repeat(21), { handle: 3, file: 3 }),
      saveOf('good2', '2', { handle: 4, file: 4 }),
    ]);
    expect(outcomes.map(({ result }) => result)).toEqual([0, -EINVAL, -EFBIG, 0]);
    expect(store.rows('good')).toHaveLength(1);
    expect(store.rows('good2')).toHaveLength(1);
    const refused = store.withDatabase((db) =>
      db.prepare('SELECT path, reason, content FROM "/quarantine"').all(),
    );
    expect(refused).toEqual([
      { path: 'bad', reason: 'unterminated-quote', content: Buffer.from('"1') },
      { path: 'big', reason: 'too-large', content: Buffer.from('1'.repeat(20 + 1)) },
    ]);
  });

  test('"group commit over all handles": a batch is one COMMIT of each database, however many saves are in it', () => {
    using store = new StoreFixture();
    const saves = Array.from({ length: 50 }, (_, index) =>
      saveOf(`kpi${index}`, `${index}\n`, { handle: index, file: index }),
    );
    store.engine.apply([saveOf('first', '1\n', { handle: 98, file: 98 })]);
    const before = commitCount(`${store.databasePath()}-wal`);
    const outcomes = store.engine.apply([...saves, saveOf('bad', '"1', { handle: 99, file: 99 })]);
    expect(commitCount(`${store.databasePath()}-wal`) - before).toBe(1);
    expect(outcomes.filter(({ result }) => result === 0)).toHaveLength(50);
    expect(store.rows('kpi49')).toHaveLength(1);
  });

  test('for a plain save that extends the previous content, only new lines are rows', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('log', 'cpu,mem\n1,2\n')]);
    store.engine.apply([saveOf('log', 'cpu,mem\n1,2\n3,4\n')]);
    store.engine.apply([saveOf('log', 'cpu,mem\n1,2\n3,4\n')]);
    expect(store.rows('log').map(({ cpu }) => cpu)).toEqual([1, 3, 1, 3]);
  });

  test('a FLUSH can’t tell that a save is over: what a replaced first part needed leaves no trace', () => {
    using store = new StoreFixture();
    const columns = (table: string): unknown =>
      store.withDatabase((db) =>
        db.prepare(`SELECT name FROM pragma_table_info('${table}')`).pluck().all(),
      );
    store.engine.apply([saveOf('load', 'cpu,mem\n', { publishes: false })]);
    expect(columns('load')).toEqual(['row_id', 'saved_at_us', 'column1', 'column2']);
    store.engine.apply([saveOf('load', 'cpu,mem\n1,2\n')]);
    expect(columns('load')).toEqual(['row_id', 'saved_at_us', 'cpu', 'mem']);
    expect(store.rows('load')).toEqual([{ row_id: 2, saved_at_us: 1_000, cpu: 1, mem: 2 }]);

    store.engine.apply([saveOf('load', 'cpu,mem\n', { publishes: false, handle: 2 })]);
    store.engine.apply([saveOf('load', 'cpu,mem\n3,4\n', { handle: 2 })]);
    expect(columns('load')).toEqual(['row_id', 'saved_at_us', 'cpu', 'mem']);
    expect(store.rows('load').map(({ cpu }) => cpu)).toEqual([1, 3]);
  });

  test('a new file made with O_EXCL that is saved again has its first save first', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('new', '1\n', { holdsNewName: true })]);
    store.engine.apply([saveOf('new', '2\n', { handle: 2 })]);
    expect(store.engine.frontier('unencrypted')).toBe(2);
    expect(store.rows('new').map(({ column1 }) => column1)).toEqual([1, 2]);
  });

  test('busyMaxMs, then EAGAIN; a save without a waiter is done later', () => {
    using store = new StoreFixture({ busyMaxMs: 5 });
    store.engine.apply([saveOf('a', '1')]);
    store.withDatabase((shell) => {
      shell.exec('BEGIN IMMEDIATE');
      const outcomes = store.engine.apply([
        saveOf('a', '2'),
        saveOf('a', '3', { token: null, handle: 2 }),
      ]);
      expect(outcomes.map(({ result }) => result)).toEqual([-EAGAIN, -EAGAIN]);
      shell.exec('ROLLBACK');
    });
    store.engine.tick();
    expect(store.rows('a').map(({ column1 }) => column1)).toEqual([1, 3]);
  });
});

describe('StoreEngine: held and published', () => {
  test('until RELEASE a later commit of the same handle replaces it', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('f', 'cpu,mem\n', { publishes: false })]);
    expect(store.engine.frontier('unencrypted')).toBe(0);
    store.engine.apply([saveOf('f', 'cpu,mem\n1,2\n', { publishes: false })]);
    store.engine.apply([{ kind: 'publish', token: null, handle: 1 }]);
    expect(store.rows('f')).toEqual([{ row_id: 2, saved_at_us: 1_000, cpu: 1, mem: 2 }]);
    expect(store.engine.takeEvents()).toEqual([
      { kind: 'published', area: 'unencrypted', throughRowId: 2, tables: [] },
    ]);
  });

  test('publishHoldMs after the last FLUSH a save is published', async () => {
    using store = new StoreFixture({ publishHoldMs: 1_000 });
    store.engine.apply([saveOf('f', '1', { publishes: false })]);
    await store.clock.advance(999);
    store.engine.tick();
    expect(store.engine.frontier('unencrypted')).toBe(0);
    await store.clock.advance(1);
    store.engine.tick();
    expect(store.engine.frontier('unencrypted')).toBe(1);
  });

  test('a held row that is overtaken moves aside and gets a new row_id when it is published', async () => {
    using store = new StoreFixture({ overtakeGraceMs: 3 });
    store.engine.apply([saveOf('f', 'x,5,5.0,', { publishes: false })]);
    store.engine.apply([saveOf('g', '2', { handle: 2, file: 3 })]);
    store.engine.tick();
    expect(store.engine.frontier('unencrypted')).toBe(0);
    await store.clock.advance(3);
    store.engine.tick();
    expect(store.engine.frontier('unencrypted')).toBe(2);
    expect(store.withDatabase(tableNames)).toEqual(['g']);
    store.engine.apply([{ kind: 'publish', token: null, handle: 1 }]);
    expect(store.rows('f')).toMatchObject([{ row_id: 3, column1: 'x', column2: 5, column4: null }]);
    expect(store.engine.frontier('unencrypted')).toBe(3);
  });

  test('a new file made with O_EXCL is published after newNameHoldMs, so that a rename within it moves the row', async () => {
    using store = new StoreFixture({ newNameHoldMs: 300 });
    store.engine.apply([saveOf('tmp', '1', { holdsNewName: true })]);
    expect(store.engine.frontier('unencrypted')).toBe(0);
    store.engine.apply([
      {
        kind: 'rename',
        token: 2n,
        file: 2,
        from: { area: 'unencrypted', path: 'tmp' },
        to: { area: 'unencrypted', path: 'kpi' },
        replaced: null,
        saves: true,
        savedAtUs: 2_000,
      },
    ]);
    expect(store.withDatabase(tableNames)).toEqual(['kpi']);
    expect(store.rows('kpi')).toMatchObject([{ row_id: 2, column1: 1, saved_at_us: 1_000 }]);
    expect(store.engine.frontier('unencrypted')).toBe(2);
    store.engine.apply([saveOf('late', '1', { holdsNewName: true, handle: 3, file: 3 })]);
    await store.clock.advance(300);
    store.engine.tick();
    expect(store.engine.frontier('unencrypted')).toBe(3);
  });
});
