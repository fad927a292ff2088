import { rm } from 'node:fs/promises';

import type { Clock } from '../runtime/clock.ts';
import { tryToLockFile, type FileLock } from '../sqlite/file-lock.ts';
import { IdentityError } from './identity-error.ts';
import { requireSite, type SiteFiles } from './site-files.ts';

const attemptsMax = 100;
const retryMs = 50;

/**
 * Runs `task` while no other process or task changes the site's identity. The lock ends with its process, so that none is
 * ever left behind.
 * @throws IdentityError `site-locked` after five seconds; `site-missing`.
 */
export async function withSiteLock<Result>(
  clock: Clock,
  files: SiteFiles,
  task: () => Promise<Result>,
): Promise<Result> {
  requireSite(files);
  const lock = await takeLock(clock, files);
  try {
    // Earlier versions held their lock by this file, and could leave it behind.
    await rm(files.formerLock, { force: true });
    return await task();
  } finally {
    lock.release();
  }
}

async function takeLock(clock: Clock, files: SiteFiles): Promise<FileLock> {
  for (let attempt = 0; ; attempt += 1) {
    const lock = tryToLockFile(files.lock);
    if (lock !== undefined) return lock;
    if (attempt >= attemptsMax) {
      throw new IdentityError(
        'site-locked',
        `another process is changing the identity in ${files.directory}, and does not end: see what runs there, and try again`,
        { retryable: true },
      );
    }
    await clock.sleep(retryMs);
  }
}
