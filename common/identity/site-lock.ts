import { randomUUID } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';

import type { Clock } from '../runtime/clock.ts';
import { systemErrorCode } from '../runtime/operating-error.ts';
import { IdentityError } from './identity-error.ts';
import type { SiteFiles } from './site-files.ts';

const attemptsMax = 100;
const retryMs = 50;

/**
 * Runs `task` while no other process or task changes the site's identity. A lock whose process is gone is taken over; two
 * that take it over at the same instant may both go on, which at worst leaves a pair that the next renewal repairs.
 * @throws IdentityError `site-locked` after five seconds.
 */
export async function withSiteLock<Result>(
  clock: Clock,
  files: SiteFiles,
  task: () => Promise<Result>,
): Promise<Result> {
  for (let attempt = 0; !(await tryToLock(files.lock)); attempt += 1) {
    if (attempt >= attemptsMax) {
      throw new IdentityError(
        'site-locked',
        `${files.lock} is held by another process: try again, or remove it when none runs`,
        { retryable: true },
      );
    }
    await clock.sleep(retryMs);
  }
  try {
    return await task();
  } finally {
    await rm(files.lock, { force: true });
  }
}

async function tryToLock(path: string): Promise<boolean> {
  if (await create(path)) return true;
  if (await isHeld(path)) return false;
  await rm(path, { force: true });
  return create(path);
}

/** A lock is there with its holder's process id or not at all, whenever its process is killed. */
async function create(path: string): Promise<boolean> {
  const named = `${path}.${randomUUID()}`;
  try {
    await writeFile(named, String(process.pid), { mode: 0o600 });
    await link(named, path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(named, { force: true });
  }
}

async function isHeld(path: string): Promise<boolean> {
  try {
    const holder = Number(await readFile(path, 'utf8'));
    if (!Number.isSafeInteger(holder) || holder <= 0) return false;
    process.kill(holder, 0);
    return true;
  } catch (error) {
    // ESRCH: the holder is gone. EPERM: it lives, and belongs to somebody else. ENOENT: released meanwhile.
    return systemErrorCode(error) === 'EPERM';
  }
}
