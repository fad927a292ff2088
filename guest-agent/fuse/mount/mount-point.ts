import { readdirSync, realpathSync, rmdirSync, statSync } from 'node:fs';

import { makeDirectory } from '../../../common/runtime/make-directory.ts';
import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { MountError } from './mount-error.ts';
import { mountAt, readMountTable } from './mount-table.ts';
import { detach } from './unmount.ts';

/** What mount(8) and df show as the type of our mounts. */
export const mountType = 'fuse.isobar';

export interface MountPoint {
  /** Absolute and free of links. */
  readonly path: string;
  /** Whether it was made for this mount, to be removed with it. */
  readonly isOurs: boolean;
}

/**
 * Makes `path` fit to mount on: a directory that exists, has no mount of ours, and is empty unless `mayHideContent`. A
 * stale mount, whose agent is dead, is taken away first. Throws {@link MountError}.
 */
export async function prepareMountPoint(path: string, mayHideContent = false): Promise<MountPoint> {
  const isOurs = await ensureDirectory(path);
  const real = realpathSync(path);
  if (isMountedAt(real)) {
    throw new MountError(
      'mountpoint-busy',
      `${real} has a running Isobar mount; stop that agent, or choose another directory`,
      { context: { path: real } },
    );
  }
  if (!mayHideContent && readdirSync(real).length > 0) {
    throw new MountError(
      'mountpoint-not-empty',
      `${real} is not empty, and a mount would hide what it holds; choose an empty directory`,
      { context: { path: real } },
    );
  }
  return { path: real, isOurs };
}

/** Whether a mount of ours, alive or stale, is at `path`, which is absolute and free of links. */
export function isMountedAt(path: string): boolean {
  return mountAt(readMountTable(), path)?.type === mountType;
}

/** Removes a directory that was made for the mount, if nothing else has come into it. */
export function releaseMountPoint(point: MountPoint): void {
  if (!point.isOurs) return;
  try {
    rmdirSync(point.path);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY' && code !== 'EBUSY') throw error;
  }
}

async function ensureDirectory(path: string): Promise<boolean> {
  try {
    if (statSync(path).isDirectory()) return false;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT') return makeMountPoint(path);
    if (code !== 'ENOTCONN' && code !== 'ECONNABORTED') throw denied(path, error);
    await detach(path);
    return ensureDirectory(path);
  }
  throw new MountError(
    'mountpoint-not-directory',
    `${path} is not a directory; choose another path for the mount`,
    { context: { path } },
  );
}

function makeMountPoint(path: string): true {
  try {
    makeDirectory(path);
    return true;
  } catch (error) {
    throw denied(path, error instanceof Error ? (error.cause ?? error) : error);
  }
}

function denied(path: string, cause: unknown): MountError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new MountError('mountpoint-denied', `the mount point ${path} can't be used: ${reason}`, {
    context: { path },
    cause,
  });
}
