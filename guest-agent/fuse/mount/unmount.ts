import { existsSync } from 'node:fs';

import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { MountError } from './mount-error.ts';
import { mountAt, readMountTable } from './mount-table.ts';
import { runProgram, type ProgramEnd } from './run-program.ts';

/*
 * umount(8) must not look at the mount, which would wait for an agent that may be dead: -c takes the path as it is,
 * -i starts no helper.
 */

/** Unmounts `path` if nothing uses it; false when something does. Nothing mounted there counts as done. */
export async function unmountIfIdle(path: string): Promise<boolean> {
  return isGone(path, isRoot() ? ['umount', '-i', '-c', path] : ['fusermount3', '-u', '--', path]);
}

/**
 * Takes the mount at `path` out of sight whatever uses it. As root its connection is aborted too: callers in flight
 * get ECONNABORTED, the fuse thread's read ends. Otherwise it ends with the last descriptor of /dev/fuse.
 */
export async function detach(path: string): Promise<void> {
  const command = isRoot()
    ? (['umount', '-i', '-c', '-f', '-l', path] as const)
    : (['fusermount3', '-uz', '--', path] as const);
  const [program, ...args] = command;
  const end = await runUnmount(program, args);
  if (end.exitCode === 0 || mountAt(readMountTable(), path) === undefined) return;
  throw new MountError(
    'mount-failed',
    `${path} can't be unmounted: ${end.output}; ${remedy(path)}`,
    { context: { path, output: end.output } },
  );
}

/** fusermount3 looks up in /etc/mtab whose mount it is, and does nothing without. */
function remedy(path: string): string {
  const byHand = `umount -l ${path}`;
  return isRoot() || existsSync('/etc/mtab')
    ? `as root: ${byHand}`
    : `as root: ${byHand}, and for the next time: ln -s ../proc/self/mounts /etc/mtab`;
}

async function isGone(path: string, command: readonly [string, ...string[]]): Promise<boolean> {
  if (mountAt(readMountTable(), path) === undefined) return true;
  const [program, ...args] = command;
  const end = await runUnmount(program, args);
  return end.exitCode === 0 || mountAt(readMountTable(), path) === undefined;
}

async function runUnmount(program: string, args: readonly string[]): Promise<ProgramEnd> {
  try {
    return await runProgram(program, args);
  } catch (cause) {
    if (systemErrorCode(cause) !== 'ENOENT') throw cause;
    throw new MountError(
      'fuse-missing',
      `${program} is not installed; as root: apt-get install ${program === 'umount' ? 'mount' : 'fuse3'}`,
      { cause },
    );
  }
}

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}
