import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { eventually } from '../../support/eventually.ts';
import { type MountedAgent, mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle, skipBecause } from '../../support/requirements.ts';
import { SqliteShell } from '../../support/sqlite-shell.ts';
import { findProgram } from '../../support/test-packages.ts';

/** The default. */
const busyMaxMs = 250;

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

  test('"Readers with the sqlite3 shell are welcome": one that reads through real saves pins the WAL, closes go on, nothing is lost', async (context) => {
    const found = await findProgram('sqlite3');
    if (typeof found === 'string') {
      skipBecause(context, found);
      return;
    }
    const kpi = path('read');
    writeFileSync(kpi, '0\n');
    using shell = new SqliteShell(found, join(agent.dataPath, 'unencrypted.db'));
    expect(await shell.ask('BEGIN; SELECT count(*) FROM read;')).toBe('1');
    const saves = Array.from({ length: 300 }, (_, index) => `${index + 1}`);
    for (const save of saves) writeFileSync(kpi, `${save}\n`);
    expect(await shell.ask('SELECT count(*) FROM read;')).toBe('1');
    expect(await shell.ask('COMMIT; SELECT count(*) FROM read;')).toBe('301');
    expect(agent.rows('read').map(({ column1 }) => String(column1))).toEqual(['0', ...saves]);
  });

  test('"busyMaxMs, then EAGAIN": a lock that the sqlite3 shell holds delays a close by that much, and costs only that save', async (context) => {
    const found = await findProgram('sqlite3');
    if (typeof found === 'string') {
      skipBecause(context, found);
      return;
    }
    const kpi = path('written');
    writeFileSync(kpi, '1\n');
    using shell = new SqliteShell(found, join(agent.dataPath, 'unencrypted.db'));
    expect(await shell.ask('BEGIN IMMEDIATE; SELECT 7;')).toBe('7');
    const startMs = performance.now();
    expect(() => {
      writeFileSync(kpi, '2\n');
    }).toThrow('EAGAIN');
    const waitedMs = performance.now() - startMs;
    expect(waitedMs).toBeGreaterThan(busyMaxMs * 0.8);
    expect(waitedMs).toBeLessThan(busyMaxMs * 10);
    // The other database has a lock of its own.
    writeFileSync(join(agent.mountPath, 'encrypted', 'written'), 'x');
    expect(await shell.ask('COMMIT; SELECT 8;')).toBe('8');
    expect(readFileSync(kpi, 'utf8')).toBe('1\n');
    writeFileSync(kpi, '3\n');
    expect(agent.rows('written').map(({ column1 }) => column1)).toEqual([1, 3]);
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

describeUnless(fuseObstacle(), 'bounds and refusals, through a mount', () => {
  test('"write(2) fails only where it is certain: limits, and completed lines of loggers"', async () => {
    await using agent = await mountAgent({ config: { files: { fileBytesMax: 8_192 } } });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    const plain = openSync(kpi, 'w');
    expect(writeSync(plain, '"open\n')).toBe(6);
    expect(() => {
      closeSync(plain);
    }).toThrow('EINVAL');
    const large = openSync(kpi, 'w');
    expect(writeSync(large, 'x'.repeat(8_192))).toBe(8_192);
    expect(() => writeSync(large, 'x')).toThrow('EFBIG');
    closeSync(large);
    const logger = openSync(join(agent.mountPath, 'unencrypted', 'log'), 'a');
    expect(() => writeSync(logger, 'a"b,"c\n')).toThrow('EINVAL');
    writeSync(logger, '1,2\n');
    closeSync(logger);
    expect(agent.rows('log')).toEqual([{ column1: 1, column2: 2 }]);
    expect(agent.rows('kpi')).toHaveLength(1);
  });

  test('"one bad save can\'t fail another": programs that save at the same time as one whose saves are refused', async () => {
    await using agent = await mountAgent();
    const script = `
      cd ${join(agent.mountPath, 'unencrypted')}
      for writer in 1 2 3; do
        (for save in $(seq 100); do echo $save | dd of=good$writer status=none || exit 1; done) & good="$good $!"
      done
      (for save in $(seq 100); do printf '"open' | dd of=bad status=none 2>/dev/null && exit 1; done; exit 0) & bad=$!
      for pid in $good $bad; do wait $pid || exit 1; done`;
    execFileSync('bash', ['-c', script], { timeout: 60_000 });
    for (const writer of [1, 2, 3]) expect(agent.rows(`good${writer}`)).toHaveLength(100);
    expect(agent.tables('unencrypted')).toEqual(['good1', 'good2', 'good3']);
  });

  test('bounds by config: files and scratch bytes are ENOSPC, open files ENFILE, a path ENAMETOOLONG', async () => {
    await using agent = await mountAgent({
      config: {
        files: { filesMax: 4, handlesMax: 3, scratchBytesMax: 4_096, pathBytesMax: 20 },
      },
    });
    const path = (name: string): string => join(agent.mountPath, 'unencrypted', name);
    const held = ['a', 'b', 'c'].map((name) => openSync(path(name), 'w'));
    expect(() => openSync(path('a'), 'r')).toThrow('ENFILE');
    for (const handle of held) closeSync(handle);
    expect(() => {
      writeFileSync(path('x'.repeat(21)), '1\n');
    }).toThrow('ENAMETOOLONG');
    expect(() => {
      writeFileSync(path('d.tmp'), 'x'.repeat(4_097));
    }).toThrow('ENOSPC');
    expect(() => {
      writeFileSync(path('e'), '1\n');
    }).toThrow('ENOSPC');
    unlinkSync(path('d.tmp'));
    writeFileSync(path('e'), '1\n');
    expect(agent.rows('e')).toEqual([{ column1: 1 }]);
  });
});

describeUnless(fuseObstacle(), 'bounds of the database, through a mount', () => {
  const mebibyte = 2 ** 20;

  test('"the size bound counts the WAL": while the sqlite3 shell pins it, saves beyond walBytesMax get EAGAIN and the files stay within the bound', async (context) => {
    const found = await findProgram('sqlite3');
    if (typeof found === 'string') {
      skipBecause(context, found);
      return;
    }
    const databaseBytesMax = 6 * mebibyte;
    await using agent = await mountAgent({
      config: { store: { databaseBytesMax, walBytesMax: 2 * mebibyte, busyMaxMs: 20 } },
    });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    const database = join(agent.dataPath, 'unencrypted.db');
    writeFileSync(kpi, '0\n');
    using shell = new SqliteShell(found, database);
    expect(await shell.ask('BEGIN; SELECT count(*) FROM kpi;')).toBe('1');
    const padding = 'x'.repeat(40_000);
    const saved = ['0'];
    let refusal: unknown;
    for (let number = 1; number <= 200 && refusal === undefined; number += 1) {
      try {
        writeFileSync(kpi, `${number}-${padding}\n`);
        saved.push(`${number}-${padding}`);
      } catch (error) {
        refusal = systemErrorCode(error);
      }
      const bytes = statSync(database).size + statSync(`${database}-wal`).size;
      expect(bytes).toBeLessThanOrEqual(databaseBytesMax);
    }
    expect(refusal).toBe('EAGAIN');
    expect(saved.length).toBeGreaterThan(10);
    expect(await shell.ask('COMMIT; SELECT 1;')).toBe('1');
    writeFileSync(kpi, 'last\n');
    expect(agent.rows('kpi').map(({ column1 }) => String(column1))).toEqual([...saved, 'last']);
  });

  test('statfs: free blocks are what the fuller database has left, and never more than the bound', async () => {
    const databaseBytesMax = 8 * mebibyte;
    await using agent = await mountAgent({
      config: { store: { databaseBytesMax, walBytesMax: 2 * mebibyte, checkpointBytes: 65_536 } },
    });
    const freeBytes = (): number => {
      const { bsize, bfree } = statfsSync(agent.mountPath);
      return bsize * bfree;
    };
    const { bsize, blocks } = statfsSync(agent.mountPath);
    expect(bsize * blocks).toBe(databaseBytesMax);
    const atFirst = freeBytes();
    expect(atFirst).toBeGreaterThan(databaseBytesMax * 0.8);
    expect(atFirst).toBeLessThan(databaseBytesMax);
    for (let number = 0; number < 60; number += 1) {
      writeFileSync(
        join(agent.mountPath, 'unencrypted', 'kpi'),
        `${number}-${'x'.repeat(50_000)}\n`,
      );
    }
    // Counted between two batches, so a save's own room shows just after its close.
    await eventually(() => freeBytes() < atFirst - 2.5 * mebibyte, { timeoutMs: 5_000 });
    const full = freeBytes();
    await agent.restart();
    expect(Math.abs(freeBytes() - full)).toBeLessThan(mebibyte);
  });
});

describeUnless(fuseObstacle(), 'who may open what the agent makes', () => {
  test('databases, side files and sockets are for their owner alone, whatever the umask', async () => {
    const umask = process.umask(0);
    try {
      await using agent = await mountAgent();
      writeFileSync(join(agent.mountPath, 'unencrypted', 'kpi'), '1\n');
      writeFileSync(join(agent.mountPath, 'encrypted', 'kpi'), 'x');
      const paths = [
        ...readdirSync(agent.dataPath).map((name) => join(agent.dataPath, name)),
        join(agent.dataPath, '..', 'control.sock'),
        join(agent.dataPath, '..', 'channel.sock'),
      ];
      expect(paths.map((each) => basename(each)).toSorted()).toEqual([
        'channel.sock',
        'control.sock',
        ...['', '-instance', '-shm', '-wal'].map((suffix) => `encrypted.db${suffix}`),
        'guest-agent.lock',
        ...['', '-instance', '-shm', '-wal'].map((suffix) => `unencrypted.db${suffix}`),
      ]);
      const open = paths.filter((each) => (statSync(each).mode & 0o077) !== 0);
      expect(open).toEqual([]);
    } finally {
      process.umask(umask);
    }
  });
});
