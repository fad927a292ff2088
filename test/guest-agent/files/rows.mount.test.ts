import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { SystemClock } from '../../../common/runtime/clock.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { guestAgentConfigSchema } from '../../../guest-agent/config.ts';
import { type MountedAgent, mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';

/** The database header's "file format write version" of a database in WAL mode (SQLite file format, 1.3). */
const walFormat = 2;

describeUnless(fuseObstacle(), 'what a save becomes, through a mount', () => {
  test('"a table named exactly like the file\'s path; the row carries the time of the save; columns row_id, saved_at_us, then the CSV\'s"', async () => {
    await using agent = await mountAgent();
    const clock = new SystemClock();
    mkdirSync(join(agent.mountPath, 'unencrypted', 'web server'));
    const beforeUs = clock.wallUs();
    writeFileSync(join(agent.mountPath, 'unencrypted', 'web server', 'load.csv'), 'cpu,mem\n1,x\n');
    const closedUs = clock.wallUs();
    const database = openDatabase(join(agent.dataPath, 'unencrypted.db'), { readonly: true });
    const statement = database.prepare<[], Record<string, number>>(
      'SELECT * FROM "web server/load.csv"',
    );
    const rows = statement.all();
    const columns = statement.columns().map(({ name, type }) => ({ name, type }));
    database.close();
    expect(rows).toMatchObject([{ row_id: 1, cpu: 1, mem: 'x' }]);
    expect(rows[0]?.['saved_at_us']).toBeGreaterThanOrEqual(beforeUs);
    expect(rows[0]?.['saved_at_us']).toBeLessThanOrEqual(closedUs);
    expect(columns).toEqual([
      { name: 'row_id', type: 'INTEGER' },
      { name: 'saved_at_us', type: 'INTEGER' },
      { name: 'cpu', type: null },
      { name: 'mem', type: null },
    ]);
  });

  test('"encrypted.db and unencrypted.db, WAL, synchronous=FULL by default"; publishHoldMs 1000, newNameHoldMs 300', async () => {
    const { store, fuseBackend } = guestAgentConfigSchema.parse({
      mountPath: '/m',
      dataDirectory: '/d',
      controlSocket: '/c',
      channel: { address: 'unix:/u' },
    });
    expect({ ...store, fuseBackend }).toMatchObject({
      synchronous: 'FULL',
      publishHoldMs: 1_000,
      newNameHoldMs: 300,
      fuseBackend: 'dev-fuse',
    });
    await using agent = await mountAgent();
    for (const area of ['encrypted', 'unencrypted']) {
      writeFileSync(join(agent.mountPath, area, 'kpi'), '1\n');
      const header = readFileSync(join(agent.dataPath, `${area}.db`));
      expect(header.subarray(0, 15).toString()).toBe('SQLite format 3');
      expect([header[18], header[19]]).toEqual([walFormat, walFormat]);
      expect(statSync(join(agent.dataPath, `${area}.db-wal`)).size).toBeGreaterThan(0);
    }
  });

  test('"directories like /tmp, mode by config": the two directories have areaMode', async () => {
    await using agent = await mountAgent();
    expect(statSync(join(agent.mountPath, 'unencrypted')).mode & 0o7777).toBe(0o1777);
    await using closed = await mountAgent({ config: { files: { areaMode: '0750' } } });
    for (const area of ['encrypted', 'unencrypted']) {
      expect(statSync(join(closed.mountPath, area)).mode & 0o7777).toBe(0o750);
    }
  });
});

describeUnless(
  fuseObstacle(),
  'labels, scratch and compaction by configuration, through a mount',
  () => {
    let agent: MountedAgent;
    const path = (name: string): string => join(agent.mountPath, 'unencrypted', name);

    beforeAll(async () => {
      agent = await mountAgent({
        config: {
          files: { fileBytesMax: 4_096, scratchNames: ['*.partial'], rotationNames: ['*.bak'] },
          store: {
            headers: [
              { pattern: 'never/**', header: 'never' },
              { pattern: 'always/**', header: 'always' },
            ],
          },
        },
      });
    });

    afterAll(async () => {
      await agent[Symbol.asyncDispose]();
    });

    test('"header: auto | always | never by file pattern": of files as they are saved', () => {
      for (const directory of ['never', 'always', 'auto']) {
        mkdirSync(path(directory));
        writeFileSync(path(`${directory}/kpi`), 'cpu,mem\n1,2\n');
        writeFileSync(path(`${directory}/words`), 'a,b\nc,d\ne,f\n');
      }
      const asLabelled = [{ cpu: 1, mem: 2 }];
      expect(agent.rows('never/kpi')).toEqual([
        { column1: 'cpu', column2: 'mem' },
        { column1: 1, column2: 2 },
      ]);
      expect(agent.rows('always/kpi')).toEqual(asLabelled);
      expect(agent.rows('auto/kpi')).toEqual(asLabelled);
      expect(agent.rows('always/words')).toEqual([
        { a: 'c', b: 'd' },
        { a: 'e', b: 'f' },
      ]);
      // "the first line is labels only if every field is identifier-like text and a later line holds a number"
      expect(agent.rows('auto/words')).toHaveLength(3);
      writeFileSync(path('auto/three'), 'cpu,mem\n1,2\n3,4\n');
      expect(agent.rows('auto/three')).toEqual([
        { cpu: 1, mem: 2 },
        { cpu: 3, mem: 4 },
      ]);
      writeFileSync(path('auto/numbers'), '1,2\n3,4\n5,6\n');
      expect(agent.rows('auto/numbers')).toHaveLength(3);
    });

    test('"temporary names (config list) never become tables; mkstemp-like patterns count only for files made with O_EXCL"', () => {
      writeFileSync(path('users.partial'), '1\n');
      writeFileSync(path('sedA1b2C3'), '2\n', { flag: 'wx' });
      writeFileSync(path('sedX9y8Z7'), '3\n');
      writeFileSync(path('rotating'), '4\n');
      renameSync(path('rotating'), path('rotating.bak'));
      expect(readFileSync(path('users.partial'), 'utf8')).toBe('1\n');
      const tables = agent.tables('unencrypted');
      expect(tables).toEqual(expect.arrayContaining(['sedX9y8Z7', 'rotating']));
      for (const name of ['users.partial', 'sedA1b2C3', 'rotating.bak']) {
        expect(tables).not.toContain(name);
      }
      // "renaming onto a KPI name is a save under that name"
      renameSync(path('users.partial'), path('users'));
      expect(agent.rows('users')).toEqual([{ column1: 1 }]);
    });

    test('"a FLUSH with nothing new commits nothing": children that end with the descriptor, fsync and close make no commit', () => {
      const handle = openSync(path('once'), 'w');
      writeSync(handle, '1\n');
      fsyncSync(handle);
      const reader = openDatabase(join(agent.dataPath, 'unencrypted.db'), { readonly: true });
      // Changes when another connection commits, whatever the commit holds.
      const version = (): unknown => reader.pragma('data_version', { simple: true });
      const before = version();
      for (let child = 0; child < 3; child += 1) {
        execFileSync('true', { stdio: ['ignore', handle, 'ignore'] });
      }
      fsyncSync(handle);
      closeSync(handle);
      expect(version()).toBe(before);
      writeFileSync(path('once'), '2\n');
      expect(version()).not.toBe(before);
      reader.close();
      expect(agent.rows('once')).toEqual([{ column1: 1 }, { column1: 2 }]);
    });

    test('"a logger compacts to labels and newest row beyond fileBytesMax": its file stays within the bound, and every line is a row', () => {
      const lineCount = 1_000;
      appendFileSync(path('log'), 'epoch,value\n0,0\n');
      for (let line = 1; line < lineCount; line += 1) {
        appendFileSync(path('log'), `${line},${line}\n`);
      }
      const content = readFileSync(path('log'), 'utf8');
      expect(Buffer.byteLength(content)).toBeLessThanOrEqual(4_096);
      expect(content.split('\n')[0]).toBe('epoch,value');
      expect(content.endsWith(`\n${lineCount - 1},${lineCount - 1}\n`)).toBe(true);
      expect(agent.rows('log').map((row) => row['epoch'])).toEqual(
        Array.from({ length: lineCount }, (_, index) => index),
      );
    });
  },
);
