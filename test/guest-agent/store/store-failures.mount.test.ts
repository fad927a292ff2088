import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { eventually } from '../../support/eventually.ts';
import { FaultyDisk } from '../../support/faulty-disk.ts';
import { mountAgent, mountAnswers } from '../../support/mounted-agent.ts';
import {
  describeUnless,
  fuseObstacle,
  programObstacle,
  rootObstacle,
} from '../../support/requirements.ts';
import { SmallDisk } from '../../support/small-disk.ts';

describeUnless(fuseObstacle() ?? rootObstacle(), 'a disk that takes no more', () => {
  test('"or fails with the errno that says why": a full disk is ENOSPC at close; nothing acknowledged is lost; room brings it back', async () => {
    using disk = new SmallDisk('3m');
    await using agent = await mountAgent({ dataParentPath: disk.path });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    writeFileSync(kpi, 'first\n');
    disk.fill();
    const saved = ['first'];
    const padding = 'x'.repeat(4_000);
    const errors = new Set<unknown>();
    for (let number = 0; number < 100 && errors.size === 0; number += 1) {
      const code = codeOf(() => {
        writeFileSync(kpi, `${number}-${padding}\n`);
      });
      if (code === undefined) saved.push(`${number}-${padding}`);
      else errors.add(code);
    }
    expect([...errors]).toEqual(['ENOSPC']);
    // What the store does of its own accord meets the full disk as well, and so does an agent that starts on it.
    const { pid } = agent;
    await eventually(() => agent.log.includes('store-upkeep-failed'), { timeoutMs: 10_000 });
    expect(agent.pid).toBe(pid);
    await agent.kill();
    await mountAnswers(agent, { timeoutMs: 10_000 });
    expect(readFileSync(kpi, 'utf8')).toBe(`${saved.at(-1) ?? ''}\n`);
    disk.empty();
    writeFileSync(kpi, 'last\n');
    saved.push('last');
    expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual(saved);
    await agent.restart();
    expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual(saved);
  });
});

describeUnless(fuseObstacle() ?? programObstacle('cc', 'gcc'), 'a disk that fails', () => {
  test.each([
    ['read-only', 'EROFS'],
    ['broken', 'EIO'],
  ] as const)(
    '"or fails with the errno that says why": a %s disk is %s at close; the agent lives on, and a mended disk brings saves back',
    async (fault, errno) => {
      using disk = await FaultyDisk.make();
      await using agent = await mountAgent({
        dataParentPath: disk.path,
        environment: disk.environment,
      });
      const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
      const { pid } = agent;
      writeFileSync(kpi, '1\n');
      disk.fail(fault);
      expect(
        codeOf(() => {
          writeFileSync(kpi, '2\n');
        }),
      ).toBe(errno);
      expect(readFileSync(kpi, 'utf8')).toBe('1\n');
      // What the store does of its own accord fails as well: when idle it copies the WAL and notes how far it came.
      await eventually(() => agent.log.includes('store-upkeep-failed'), { timeoutMs: 10_000 });
      disk.mend();
      writeFileSync(kpi, '3\n');
      expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual([1, 3]);
      expect(agent.pid).toBe(pid);
    },
  );

  test('kill -9 of the agent on a read-only disk: files can be read, saves are back when the disk is, "no acknowledged save is lost"', async () => {
    using disk = await FaultyDisk.make();
    await using agent = await mountAgent({
      dataParentPath: disk.path,
      environment: disk.environment,
    });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    writeFileSync(kpi, '1\n');
    disk.fail('read-only');
    await agent.kill();
    await eventually(() => readFileSync(kpi, 'utf8') === '1\n', { timeoutMs: 20_000 });
    expect(
      codeOf(() => {
        writeFileSync(kpi, '2\n');
      }),
    ).toBe('EROFS');
    disk.mend();
    await eventually(
      () =>
        codeOf(() => {
          writeFileSync(kpi, '2\n');
        }) === undefined,
      { timeoutMs: 10_000 },
    );
    expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual([1, 2]);
  });
});

describeUnless(fuseObstacle() ?? rootObstacle(), 'a mount that an operator remounts', () => {
  test('mount -o remount,ro: EROFS for writers, readers go on; remount,rw brings saves back, nothing is lost', async () => {
    await using agent = await mountAgent();
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    const { pid } = agent;
    writeFileSync(kpi, '1\n');
    const held = openSync(kpi, 'w');
    writeSync(held, '2\n');
    const remount = (mode: 'ro' | 'rw'): void => {
      execFileSync('mount', ['-i', '-o', `remount,${mode}`, agent.mountPath], { stdio: 'pipe' });
    };
    // As on any file system, not under a program that writes.
    expect(() => {
      remount('ro');
    }).toThrow('busy');
    closeSync(held);
    remount('ro');
    for (const change of [
      () => {
        writeFileSync(kpi, '3\n');
      },
      () => {
        unlinkSync(kpi);
      },
      () => {
        mkdirSync(join(agent.mountPath, 'unencrypted', 'directory'));
      },
    ]) {
      expect(codeOf(change)).toBe('EROFS');
    }
    expect(readFileSync(kpi, 'utf8')).toBe('2\n');
    remount('rw');
    writeFileSync(kpi, '4\n');
    expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual([1, 2, 4]);
    expect(agent.pid).toBe(pid);
  });
});

describeUnless(fuseObstacle(), 'row_ids over ends of the agent', () => {
  test('"row_id (one counter a database, never reused)": kill -9 and restart let them rise, a clean stop leaves no gap', async () => {
    await using agent = await mountAgent();
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    const ids = (): readonly number[] => rowIds(agent.dataPath);
    writeFileSync(kpi, '1\n');
    writeFileSync(kpi, '2\n');
    await agent.restart();
    writeFileSync(kpi, '3\n');
    expect(ids()).toEqual([1, 2, 3]);
    const generation = generationOf(agent.dataPath);
    await agent.kill();
    await agent.restart();
    writeFileSync(kpi, '4\n');
    writeFileSync(kpi, '5\n');
    const after = ids();
    expect(after.toSorted((left, right) => left - right)).toEqual(after);
    expect(new Set(after).size).toBe(5);
    expect(generationOf(agent.dataPath)).toBe(generation);
  });
});

function codeOf(action: () => void): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return systemErrorCode(error);
  }
}

function rowIds(dataPath: string): readonly number[] {
  return query(dataPath, 'SELECT row_id FROM kpi ORDER BY CAST(column1 AS INTEGER)').map(Number);
}

function generationOf(dataPath: string): unknown {
  return query(dataPath, 'SELECT generation FROM "/state"')[0];
}

function query(dataPath: string, sql: string): readonly unknown[] {
  const database = openDatabase(join(dataPath, 'unencrypted.db'), { readonly: true });
  try {
    return database.prepare(sql).pluck().all();
  } finally {
    database.close();
  }
}
