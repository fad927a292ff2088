import { closeSync, openSync, readdirSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import type { Database } from '../../../common/sqlite/database.ts';
import { migrate } from '../../../common/sqlite/migrate.ts';
import { openSoundDatabase, setAsideFiles } from '../../../common/sqlite/set-aside.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let path: string;

const migrations = [{ name: 'rows', up: 'CREATE TABLE rows (text TEXT) STRICT' }];

function open(): Database {
  return openSoundDatabase({ clock: new SystemClock(), log: silentLog }, path, {}, (database) => {
    migrate(database, migrations);
  });
}

const countRows = (database: Database): unknown =>
  database.prepare('SELECT count(*) FROM rows').pluck().get();

function fill(): void {
  const database = open();
  const insert = database.prepare('INSERT INTO rows VALUES (?)');
  for (let index = 0; index < 100; index += 1) insert.run('x'.repeat(1_000));
  database.close();
}

function damage(fromByte: number): void {
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(4_096, 0xa5), 0, 4_096, fromByte);
  closeSync(file);
}

describe('openSoundDatabase', () => {
  beforeEach(() => {
    directory = temporaryDirectory();
    path = join(directory.path, 'rows.db');
    fill();
  });

  afterEach(() => {
    directory[Symbol.dispose]();
  });

  test('opens a sound database as it is', () => {
    using sound = closing(open());
    expect(countRows(sound.database)).toBe(100);
    expect(setAsideFiles(directory.path)).toEqual([]);
  });

  const damages = {
    'truncated in the middle': () => {
      truncateSync(path, 20_000);
    },
    'truncated to nothing but its header': () => {
      truncateSync(path, 100);
    },
    'a damaged page': () => {
      damage(8 * 4_096);
    },
    'a damaged header': () => {
      damage(0);
    },
  };
  for (const [what, make] of Object.entries(damages)) {
    test(`${what}: set aside as it is, and an empty one takes its place`, () => {
      make();
      const before = readFileSync(path);
      using opened = closing(open());
      expect(countRows(opened.database)).toBe(0);
      const [name = '', ...more] = setAsideFiles(directory.path);
      expect(more).toEqual([]);
      expect(name).toMatch(/^rows\.db\.corrupt-\d+$/);
      expect(Buffer.compare(readFileSync(join(directory.path, name)), before)).toBe(0);
    });
  }

  test('what a newer program wrote is no damage: it is refused and left where it is', () => {
    const newer = open();
    newer.pragma('user_version = 99');
    newer.close();
    expect(open).toThrow(expect.objectContaining({ code: 'database-newer' }));
    expect(readdirSync(directory.path)).toContain('rows.db');
    expect(setAsideFiles(directory.path)).toEqual([]);
  });
});

function closing(database: Database): Disposable & { readonly database: Database } {
  return {
    database,
    [Symbol.dispose]: () => {
      database.close();
    },
  };
}
