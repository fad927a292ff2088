import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { siteFiles, type SiteFiles } from '../../../common/identity/site-files.ts';
import { withSiteLock } from '../../../common/identity/site-lock.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const clock = new SystemClock();
let parent: ReturnType<typeof temporaryDirectory>;
let files: SiteFiles;
beforeEach(() => {
  parent = temporaryDirectory();
  files = siteFiles(parent.path);
  mkdirSync(join(parent.path, 'identity'));
  writeFileSync(files.document, '{}');
});
afterEach(() => {
  parent[Symbol.dispose]();
});

const entered = () => withSiteLock(clock, files, () => Promise.resolve('entered'));

/** Another process that holds the lock, once this resolves, until it is killed. */
async function startHolder() {
  const program = `
    const Sqlite = require('better-sqlite3');
    globalThis.held = new Sqlite(process.argv[1]).exec('BEGIN EXCLUSIVE');
    process.stdout.write('held');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', program, files.lock], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

describe('withSiteLock', () => {
  test.each(['', String(process.pid), '1', '4194305'])(
    'a lock file of an earlier version (%j) keeps nobody out, and goes',
    async (content) => {
      writeFileSync(files.formerLock, content);
      expect(await entered()).toBe('entered');
      expect(existsSync(files.formerLock)).toBe(false);
    },
  );

  test('waits for another process that holds it, and has it as soon as that one is killed', async () => {
    const holder = await startHolder();
    const waiting = new ManualClock();
    const outcome = withSiteLock(waiting, files, () => Promise.resolve('entered')).catch(
      (error: unknown) => error,
    );
    await waiting.advance(6_000);
    expect(await outcome).toMatchObject({ code: 'site-locked', retryable: true });
    const ended = once(holder, 'exit');
    holder.kill('SIGKILL');
    await ended;
    const atOnce = withSiteLock(new ManualClock(), files, () => Promise.resolve('entered'));
    expect(await atOnce).toBe('entered');
  });

  test('never lets two in at once', async () => {
    let insideCount = 0;
    const insideCounts: number[] = [];
    const enterAgain = async (timesLeft: number): Promise<void> => {
      if (timesLeft === 0) return;
      await withSiteLock(clock, files, async () => {
        insideCount += 1;
        insideCounts.push(insideCount);
        await delay(timesLeft % 4);
        insideCount -= 1;
      });
      await enterAgain(timesLeft - 1);
    };
    await Promise.all(Array.from({ length: 8 }, () => enterAgain(10)));
    expect(insideCounts).toEqual(Array.from({ length: 80 }, () => 1));
  });

  test('is given back when the task fails', async () => {
    const failing = withSiteLock(clock, files, () => Promise.reject(new Error('no')));
    await expect(failing).rejects.toThrow('no');
    expect(await entered()).toBe('entered');
  });

  test('a lock file that holds something else says what to do', async () => {
    writeFileSync(files.lock, 'x'.repeat(4_096));
    await expect(entered()).rejects.toThrow('remove it if it is not empty');
  });
});
