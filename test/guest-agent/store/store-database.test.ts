import { copyFileSync, cpSync, renameSync, rmSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { DatabaseContentReader } from '../../../guest-agent/store/database-content-reader.ts';
import { StoreEngine } from '../../../guest-agent/store/store-engine.ts';
import { StoreReader } from '../../../guest-agent/store/store-reader.ts';
import { appendOf, saveOf, StoreFixture } from '../../support/store-fixture.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const { EAGAIN, EINVAL, ENOSPC } = constants.errno;

describe('database identity: "new when it is created, restored, cloned or rolled back"', () => {
  test('a restart keeps the generation', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('a', '1')]);
    const before = store.engine.generation('unencrypted');
    store.close();
    expect(store.engine.generation('unencrypted')).toBe(before);
    expect(store.engine.generation('encrypted')).not.toBe(before);
  });

  test('restored: the side file is gone', () => {
    using store = new StoreFixture();
    const before = store.engine.generation('unencrypted');
    store.close();
    rmSync(`${store.databasePath()}-instance`);
    expect(store.engine.generation('unencrypted')).not.toBe(before);
  });

  test('cloned: the database file is another one', () => {
    using store = new StoreFixture();
    const before = store.engine.generation('unencrypted');
    store.close();
    const copy = join(store.directory.path, 'copy');
    copyFileSync(store.databasePath(), copy);
    renameSync(copy, store.databasePath());
    expect(store.engine.generation('unencrypted')).not.toBe(before);
  });

  test('rolled back: an older content in the same file, and row_ids are not given again', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('a', '1')]);
    store.close();
    const copy = join(store.directory.path, 'copy');
    copyFileSync(store.databasePath(), copy);
    const before = store.engine.generation('unencrypted');
    store.engine.apply([saveOf('a', '2')]);
    store.close();
    copyFileSync(copy, store.databasePath());
    expect(store.engine.generation('unencrypted')).not.toBe(before);
    store.engine.apply([saveOf('a', '3')]);
    expect(store.rows('a')).toMatchObject([
      { row_id: 1, column1: 1 },
      { row_id: 3, column1: 3 },
    ]);
  });

  test('restored: a copy with side file and WAL, taken while the store ran, in the place of the database', () => {
    using store = new StoreFixture();
    using copy = temporaryDirectory();
    store.engine.apply([saveOf('a', '1')]);
    const before = store.engine.generation('unencrypted');
    cpSync(store.directory.path, copy.path, { recursive: true });
    store.engine.apply([saveOf('a', '2')]);
    store.close();
    rmSync(store.directory.path, { recursive: true });
    cpSync(copy.path, store.directory.path, { recursive: true });
    expect(store.engine.generation('unencrypted')).not.toBe(before);
    expect(store.rows('a')).toMatchObject([{ column1: 1 }]);
  });

  test('cloned: the same files on another machine', () => {
    using store = new StoreFixture({ machineId: 'first' });
    const before = store.engine.generation('unencrypted');
    store.close();
    const log = silentLog;
    const other = new StoreEngine(
      { clock: store.clock, random: new SystemRandom(), log, reachCrashPoint: () => {} },
      { ...store.options, machineId: 'second' },
    );
    expect(other.generation('unencrypted')).not.toBe(before);
    other.close();
  });

  test('rolled back unnoticed: the host acknowledges a row that is not there', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('a', '1')]);
    const before = store.engine.generation('unencrypted');
    expect(store.engine.acknowledge('unencrypted', before, 1)).toEqual([]);
    const events = store.engine.acknowledge('unencrypted', before, 9);
    expect(events).toMatchObject([{ kind: 'generation', area: 'unencrypted' }]);
    expect(store.engine.generation('unencrypted')).not.toBe(before);
    store.engine.apply([saveOf('a', '2')]);
    expect(store.rows('a').at(-1)).toMatchObject({ row_id: 10 });
  });
});

describe('loggers', () => {
  test('on an O_APPEND handle every completed line is a row at once, and a first line of labels is none', () => {
    using store = new StoreFixture();
    store.engine.apply([appendOf('log', 'cpu,mem\n')]);
    expect(store.engine.frontier('unencrypted')).toBe(0);
    store.engine.apply([appendOf('log', '1,2\n')]);
    expect(store.rows('log')).toMatchObject([{ row_id: 2, cpu: 1, mem: 2 }]);
    expect(store.engine.frontier('unencrypted')).toBe(2);
  });

  test('an unfinished line is held and replaced when it goes on', () => {
    using store = new StoreFixture();
    store.engine.apply([appendOf('log', '1\n2')]);
    expect(store.engine.frontier('unencrypted')).toBe(1);
    const [outcome] = store.engine.apply([appendOf('log', '23\n', { resentBytes: 1 })]);
    expect(outcome).toMatchObject({ sizeBytes: 5 });
    expect(store.rows('log').map(({ column1 }) => column1)).toEqual([1, 23]);
    const reader = new DatabaseContentReader(store.directory.path);
    expect(Buffer.from(reader.content('unencrypted', 2)).toString()).toBe('1\n23\n');
    reader.close();
  });

  test('an unfinished number decides nothing: when the line ends as text, the first line is a row', () => {
    using store = new StoreFixture();
    const unfinished = { resentBytes: 0, endsUnfinished: true };
    store.engine.apply([appendOf('log', 'cpu,mem\n')]);
    store.engine.apply([appendOf('log', '1', unfinished)]);
    expect(store.engine.frontier('unencrypted')).toBe(0);
    store.engine.apply([appendOf('log', '1x,y\n', { resentBytes: 1 })]);
    expect(store.rows('log')).toMatchObject([
      { column1: 'cpu', column2: 'mem' },
      { column1: '1x', column2: 'y' },
    ]);
    expect(store.engine.held(10)).toEqual([]);
  });

  test.each(['release', 'time', 'unlink'])(
    'a last line without end counts when the save ends: %s',
    async (end) => {
      using store = new StoreFixture();
      store.engine.apply([appendOf('log', 'cpu,mem\n1,2')]);
      if (end === 'release') store.engine.apply([{ kind: 'publish', token: null, handle: 1 }]);
      else if (end === 'time') {
        await store.clock.advance(1_000);
        store.engine.tick();
      } else {
        const location = { area: 'unencrypted', path: 'log' } as const;
        store.engine.apply([{ kind: 'remove', token: 1n, file: 2, location }]);
      }
      expect(store.rows('log')).toMatchObject([{ cpu: 1, mem: 2 }]);
      expect(store.rows('log')).toHaveLength(1);
      expect(store.engine.held(10)).toEqual([]);
    },
  );

  test('fsync publishes an unfinished line; what it becomes is another row, under the labels of the file', () => {
    using store = new StoreFixture();
    store.engine.apply([appendOf('log', 'cpu', { publishes: true })]);
    expect(store.engine.frontier('unencrypted')).toBe(1);
    store.engine.apply([appendOf('log', 'cpu,mem\n', { resentBytes: 3 })]);
    store.engine.apply([appendOf('log', '1,2\n')]);
    expect(store.rows('log')).toMatchObject([{ column1: 'cpu' }, { cpu: 1, mem: 2 }]);
    expect(store.rows('log')).toHaveLength(2);
  });

  test('"A one-line row once published stays", and later lines get its labels, through other handles too', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('log', 'epoch,value\n')]);
    for (const [index, line] of ['1,0.5\n', '2,0.6\n'].entries()) {
      const handle = index + 2;
      store.engine.apply([appendOf('log', line, { handle })]);
      store.engine.apply([{ kind: 'publish', token: null, handle }]);
    }
    expect(store.rows('log')).toMatchObject([
      { column1: 'epoch', column2: 'value' },
      { epoch: 1, value: 0.5 },
      { epoch: 2, value: 0.6 },
    ]);
  });

  test('"a later line holds a number": a logger reads like a file of the same lines, whichever line it is', () => {
    using store = new StoreFixture();
    for (const line of ['name,value\n', 'x,none\n', 'y,5\n']) {
      store.engine.apply([appendOf('log', line)]);
    }
    expect(store.rows('log').at(-1)).toMatchObject({ name: 'y', value: 5 });
  });

  test('a logger compacts to labels and newest row beyond fileBytesMax or at a restart', () => {
    using store = new StoreFixture({ fileBytesMax: 24 });
    store.engine.apply([appendOf('log', 'cpu,mem\n1,2\n')]);
    store.engine.apply([appendOf('log', '3,4\n5,6\n')]);
    const [outcome] = store.engine.apply([appendOf('log', '7,8\n9,10\n')]);
    expect(outcome).toMatchObject({ result: 0, sizeBytes: 'cpu,mem\n9,10\n'.length });
    store.engine.apply([appendOf('log', '11,12\n')]);
    store.close();
    expect(store.engine.generation('unencrypted')).toHaveLength(32);
    const reader = new DatabaseContentReader(store.directory.path);
    expect(Buffer.from(reader.content('unencrypted', 2)).toString()).toBe('cpu,mem\n11,12\n');
    reader.close();
    expect(store.rows('log')).toHaveLength(6);
  });
});

describe('size bound: "acknowledged rows are pruned first, then the oldest unacknowledged, counted and reported as lost"', () => {
  const mebibyte = 2 ** 20;
  const big = `"${'x'.repeat(60_000)}"`;

  test('a full database goes on by itself', () => {
    using store = new StoreFixture({ databaseBytesMax: 3 * mebibyte, walBytesMax: mebibyte });
    const generation = store.engine.generation('unencrypted');
    const results = new Set<number>();
    const save = (): void => {
      for (const { result } of store.engine.apply([saveOf('a', big)])) results.add(result);
      store.engine.afterReplies();
    };
    for (let count = 0; count < 25; count += 1) save();
    store.engine.acknowledge('unencrypted', generation, 20);
    for (let count = 0; count < 20; count += 1) save();
    expect(store.engine.counters('unencrypted').lostRows).toBe(0);
    for (let count = 0; count < 40; count += 1) save();
    expect([...results]).toEqual([0]);
    const { lostRows } = store.engine.counters('unencrypted');
    expect(lostRows).toBeGreaterThan(0);
    const reader = new StoreReader(store.directory.path);
    const lost = reader.lost('unencrypted', 0);
    expect(lost.reduce((total, { rowCount }) => total + rowCount, 0)).toBe(lostRows);
    reader.close();
    expect(statSync(store.databasePath()).size).toBeLessThanOrEqual(3 * mebibyte);
    expect(store.engine.takeEvents().filter(({ kind }) => kind === 'lost').length).toBe(
      lost.length,
    );
  });

  test('ENOSPC when nothing can be pruned', () => {
    using store = new StoreFixture({ databaseBytesMax: 3 * mebibyte, walBytesMax: mebibyte });
    const results: number[] = [];
    for (let file = 1; file <= 60; file += 1) {
      const save = saveOf('a', big, { area: 'encrypted', file, filePath: `f${file}` });
      for (const { result } of store.engine.apply([save])) results.push(result);
      store.engine.afterReplies();
    }
    expect(results[0]).toBe(0);
    expect(results.at(-1)).toBe(-ENOSPC);
  });
});

describe('readers with the sqlite3 shell', () => {
  test('one that pins the WAL costs EAGAIN once walBytesMax is used up, and nothing after it ends', () => {
    using store = new StoreFixture({
      walBytesMax: 2 ** 20,
      databaseBytesMax: 2 ** 23,
      busyMaxMs: 5,
    });
    const save = (): number => {
      const [outcome] = store.engine.apply([saveOf('a', `"${'x'.repeat(20_000)}"`)]);
      store.engine.afterReplies();
      return outcome?.result ?? 0;
    };
    expect(save()).toBe(0);
    store.withDatabase((shell) => {
      shell.exec('BEGIN');
      shell.prepare('SELECT count(*) FROM a').get();
      const results = Array.from({ length: 100 }, save);
      expect(results[0]).toBe(0);
      expect(results.at(-1)).toBe(-EAGAIN);
      shell.exec('COMMIT');
      expect(Array.from({ length: 5 }, save)).toEqual([0, 0, 0, 0, 0]);
    });
  });
});

describe('StoreReader', () => {
  test('rows come ordered by row_id across tables, within bounds, with the labels that each save had', () => {
    using store = new StoreFixture();
    for (let number = 1; number <= 200; number += 1) {
      const content = number % 2 === 0 ? `cpu,mem\n${number},\n` : `CPU\n${number}\n`;
      store.engine.apply([
        saveOf(`t${number % 3}`, content, { file: number % 3, savedAtUs: number }),
      ]);
    }
    const reader = new StoreReader(store.directory.path);
    const rows = [];
    let afterRowId = 0;
    for (let hasMore = true; hasMore;) {
      const bounds = { throughRowId: 190, rowsMax: 7, bytesMax: 10_000 };
      const fetched = reader.fetch({ area: 'unencrypted', afterRowId, ...bounds });
      rows.push(...fetched.rows);
      ({ hasMore, throughRowId: afterRowId } = fetched);
    }
    expect(afterRowId).toBe(190);
    expect(rows.map(({ rowId }) => rowId)).toEqual(
      Array.from({ length: 190 }, (_, index) => index + 1),
    );
    expect(rows[1]).toMatchObject({ table: 't2', columns: ['cpu', 'mem'], values: [2, null] });
    expect(rows[4]).toMatchObject({ table: 't2', columns: ['CPU'], values: [5] });
    reader.close();
  });

  test('rows behind a cursor are counted, not row ids: those of a withdrawn save have no row', () => {
    using store = new StoreFixture();
    store.engine.apply([saveOf('kpi', 'cpu,mem\n', { publishes: false })]);
    store.engine.apply([saveOf('kpi', 'cpu,mem\n1,2\n')]);
    store.engine.apply([saveOf('other', '3\n', { file: 2, handle: 2 })]);
    const reader = new StoreReader(store.directory.path);
    const frontier = store.engine.frontier('unencrypted');
    expect(frontier).toBe(3);
    expect(reader.rowCount('unencrypted', 0, frontier)).toBe(2);
    expect(reader.rowCount('unencrypted', 2, frontier)).toBe(1);
    expect(reader.rowCount('unencrypted', frontier, frontier)).toBe(0);
    expect(reader.rowCount('unencrypted', 0, 10_000_000)).toBe(10_000_000);
    reader.close();
  });
});

describe('bounds of the store', () => {
  test('tables: ENOSPC for one more; columns of a table over all its saves: EINVAL', () => {
    using store = new StoreFixture({ tablesMax: 2, columnsMax: 3 });
    const resultOf = (path: string, content: string): number | undefined =>
      store.engine.apply([saveOf(path, content)])[0]?.result;
    expect(resultOf('a', '1')).toBe(0);
    expect(resultOf('b', '1')).toBe(0);
    expect(resultOf('c', '1')).toBe(-ENOSPC);
    expect(resultOf('a', 'x,y\n1,2\n')).toBe(0);
    expect(resultOf('a', 'z\n1\n')).toBe(-EINVAL);
    expect(resultOf('a', '2')).toBe(0);
  });

  test('quarantine bytes and age: the oldest go first', () => {
    using store = new StoreFixture({ quarantineBytesMax: 100, quarantineAgeMaxMs: 1_000 });
    const refuse = (mark: string, savedAtUs: number): void => {
      store.engine.apply([saveOf('a', `"${mark.repeat(40)}`, { savedAtUs })]);
    };
    const kept = (): readonly unknown[] =>
      store.withDatabase((shell) =>
        shell
          .prepare(
            'SELECT CAST(substr(content, 2, 1) AS TEXT) FROM "/quarantine" ORDER BY quarantine_id',
          )
          .pluck()
          .all(),
      );
    for (const mark of ['a', 'b', 'c']) refuse(mark, 1_000);
    expect(kept()).toEqual(['b', 'c']);
    refuse('d', 2_000_000);
    expect(kept()).toEqual(['d']);
  });

  test('retries: what nobody waits for is dropped and counted beyond retriesMax', () => {
    using store = new StoreFixture({ busyMaxMs: 1, retriesMax: 2 });
    store.engine.apply([saveOf('a', '0')]);
    store.withDatabase((shell) => {
      shell.exec('BEGIN IMMEDIATE');
      for (const content of ['1', '2', '3']) {
        const [outcome] = store.engine.apply([saveOf('a', content, { token: null, handle: 0 })]);
        expect(outcome?.result).toBe(-EAGAIN);
      }
      shell.exec('COMMIT');
    });
    store.engine.tick();
    expect(store.engine.counters('unencrypted').droppedRetries).toBeGreaterThan(0);
    expect(store.rows('a').map(({ column1 }) => column1)).toEqual([0, 1, 2]);
  });
});
