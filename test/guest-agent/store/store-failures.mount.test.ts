import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle, rootObstacle } from '../../support/requirements.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

describeUnless(fuseObstacle() ?? rootObstacle(), 'a disk that takes no more', () => {
  test('"or fails with the errno that says why": a full disk is ENOSPC at close; nothing acknowledged is lost; room brings it back', async () => {
    using disk = new SmallDisk('3m');
    await using agent = await mountAgent({ dataParentPath: disk.path });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    const filler = join(disk.path, 'filler');
    writeFileSync(kpi, 'first\n');
    fill(filler);
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
    expect(readFileSync(kpi, 'utf8')).toBe(`${saved.at(-1) ?? ''}\n`);
    rmSync(filler);
    writeFileSync(kpi, 'last\n');
    saved.push('last');
    expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual(saved);
    await agent.restart();
    expect(agent.rows('kpi').map(({ column1 }) => column1)).toEqual(saved);
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

/** A tmpfs of its own; lazily unmounted at the end, as an agent may still be going. */
class SmallDisk implements Disposable {
  readonly #directory = temporaryDirectory();
  readonly path = this.#directory.path;

  constructor(size: string) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'isobar-test', this.path]);
  }

  [Symbol.dispose](): void {
    execFileSync('umount', ['-l', this.path]);
    this.#directory[Symbol.dispose]();
  }
}

/** Leaves no more than a few pages free. */
function fill(path: string): void {
  expect(
    codeOf(() => {
      writeFileSync(path, Buffer.alloc(64 * 2 ** 20));
    }),
  ).toBe('ENOSPC');
}

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
