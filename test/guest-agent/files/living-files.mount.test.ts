import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { openDatabase } from '../../../common/sqlite/database.ts';
import { type MountedAgent, mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';

describeUnless(fuseObstacle(), 'files while they live, through a mount', () => {
  let agent: MountedAgent;
  const path = (name: string): string => join(agent.mountPath, 'unencrypted', name);

  beforeAll(async () => {
    agent = await mountAgent();
  });

  afterAll(async () => {
    await agent[Symbol.asyncDispose]();
  });

  test('"reading it gives exactly the bytes of its last save; after a failed close it gives the last good save"', () => {
    const kpi = path('exact');
    const saves = ['\uFEFFcpu,mem\r\n1,2\r\n', ' "a" ,\t5.\n\n\n', 'x', '7\n'];
    for (const save of saves) {
      writeFileSync(kpi, save);
      expect(readFileSync(kpi, 'utf8')).toBe(save);
    }
    expect(() => {
      writeFileSync(kpi, '"open\n');
    }).toThrow('EINVAL');
    expect(readFileSync(kpi, 'utf8')).toBe('7\n');
  });

  test('two writers: each saves what it wrote, readers see the later save, both are rows', () => {
    const kpi = path('two');
    const first = openSync(kpi, 'w');
    const second = openSync(kpi, 'w');
    writeSync(first, '1\n');
    writeSync(second, '22\n');
    closeSync(second);
    expect(readFileSync(kpi, 'utf8')).toBe('22\n');
    closeSync(first);
    expect(readFileSync(kpi, 'utf8')).toBe('1\n');
    expect(agent.rows('two').map(({ column1 }) => column1)).toEqual([22, 1]);
  });

  test('"Unlink keeps the table": a reader goes on, an open writer still saves its row', () => {
    const kpi = path('unlinked');
    writeFileSync(kpi, '1\n');
    const reader = openSync(kpi, 'r');
    const writer = openSync(kpi, 'w');
    writeSync(writer, '2\n');
    unlinkSync(kpi);
    expect(readSync(reader, Buffer.alloc(8))).toBe(2);
    closeSync(reader);
    closeSync(writer);
    expect(agent.rows('unlinked').map(({ column1 }) => column1)).toEqual([1, 2]);
  });

  test('a rename while a writer is open takes its save along', () => {
    const writer = openSync(path('before'), 'w');
    writeSync(writer, '5\n');
    renameSync(path('before'), path('after'));
    closeSync(writer);
    expect(agent.rows('after')).toEqual([{ column1: 5 }]);
    expect(readFileSync(path('after'), 'utf8')).toBe('5\n');
    expect(agent.tables('unencrypted')).not.toContain('before');
  });

  test('as collectd opens: labels through one open, lines appended through others: "A one-line row once published stays"', () => {
    mkdirSync(path('load'));
    const kpi = path('load/load-2026');
    writeFileSync(kpi, 'epoch,shortterm\n');
    appendFileSync(kpi, '1,0.5\n');
    appendFileSync(kpi, '2,0.25\n');
    expect(agent.rows('load/load-2026')).toEqual([
      { column1: 'epoch', column2: 'shortterm' },
      { epoch: 1, shortterm: 0.5 },
      { epoch: 2, shortterm: 0.25 },
    ]);
    expect(readFileSync(kpi, 'utf8')).toBe('epoch,shortterm\n1,0.5\n2,0.25\n');
  });

  test('a logger whose unfinished number ends as text loses nothing', () => {
    const logger = openSync(path('log'), 'a');
    writeSync(logger, 'cpu,mem\n');
    writeSync(logger, '1');
    // The end of a child that inherited the descriptor: a FLUSH, and no RELEASE.
    execFileSync('true', { stdio: ['ignore', logger, 'ignore'] });
    expect(readFileSync(path('log'), 'utf8')).toBe('cpu,mem\n1');
    writeSync(logger, 'x,y\n');
    closeSync(logger);
    expect(agent.rows('log')).toEqual([
      { column1: 'cpu', column2: 'mem' },
      { column1: '1x', column2: 'y' },
    ]);
  });

  test('fsync in the middle of a line publishes it; the finished line is another row', () => {
    const logger = openSync(path('synced'), 'a');
    writeSync(logger, '1,');
    fsyncSync(logger);
    expect(agent.rows('synced')).toEqual([{ column1: 1, column2: null }]);
    writeSync(logger, '2\n');
    closeSync(logger);
    expect(agent.rows('synced').at(-1)).toEqual({ column1: 1, column2: 2 });
    expect(readFileSync(path('synced'), 'utf8')).toBe('1,2\n');
  });

  test('"Readers with the sqlite3 shell are welcome and harmless: busyMaxMs, then EAGAIN"', () => {
    const kpi = path('locked');
    writeFileSync(kpi, '1\n');
    const shell = openDatabase(join(agent.dataPath, 'unencrypted.db'), {});
    try {
      shell.exec('BEGIN');
      shell.prepare('SELECT count(*) FROM locked').get();
      writeFileSync(kpi, '2\n');
      shell.exec('COMMIT; BEGIN IMMEDIATE');
      expect(() => {
        writeFileSync(kpi, '3\n');
      }).toThrow('EAGAIN');
      shell.exec('COMMIT');
    } finally {
      shell.close();
    }
    expect(readFileSync(kpi, 'utf8')).toBe('2\n');
    writeFileSync(kpi, '4\n');
    expect(agent.rows('locked').map(({ column1 }) => column1)).toEqual([1, 2, 4]);
  });

  test('a restart in between: names, bytes and labels are there again, a logger goes on under its labels', async () => {
    writeFileSync(path('kept'), 'a,b\n1,2\n');
    appendFileSync(path('logged'), 'epoch,value\n');
    appendFileSync(path('logged'), '1,2\n3,4\n');
    await agent.restart();
    expect(readFileSync(path('kept'), 'utf8')).toBe('a,b\n1,2\n');
    expect(readFileSync(path('logged'), 'utf8')).toBe('epoch,value\n3,4\n');
    appendFileSync(path('logged'), '5,6\n');
    expect(agent.rows('logged').at(-1)).toEqual({ epoch: 5, value: 6 });
  });
});
