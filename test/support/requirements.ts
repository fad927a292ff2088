import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, type TestContext } from 'vitest';

import { packageRoot } from '../../common/runtime/package-root.ts';
import type { BackendName } from '../../guest-agent/fuse/backend-capability.ts';

/** Why something that a test needs can't be had on this machine; undefined when it can. */
export type Obstacle = string | undefined;

/** Real mounts: the device, and root or fusermount3. */
export function fuseObstacle(): Obstacle {
  if (!isAccessible('/dev/fuse', constants.R_OK | constants.W_OK)) {
    return '/dev/fuse is missing or closed to this user; in a container add --device /dev/fuse --cap-add SYS_ADMIN';
  }
  if (process.getuid?.() !== 0) {
    return programObstacle('fusermount3', 'fuse3');
  }
  return mountObstacle();
}

/** The fuse-native backend: FUSE, and libfuse 2 to load it. */
export function fuseNativeObstacle(): Obstacle {
  const obstacle = fuseObstacle();
  if (obstacle !== undefined) return obstacle;
  const libraries = execFileSync('ldconfig', ['-p'], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  });
  return libraries.includes('libfuse.so.2')
    ? undefined
    : 'libfuse2 is missing: apt-get install libfuse2';
}

/** What stands in the way of mounts by `backend`. */
export function backendObstacle(backend: BackendName): Obstacle {
  return backend === 'fuse-native' ? fuseNativeObstacle() : fuseObstacle();
}

/** A program on the PATH, and the Debian package that has it. */
export function programObstacle(program: string, debianPackage: string): Obstacle {
  const directories = (process.env['PATH'] ?? '').split(':');
  const isThere = directories.some((directory) =>
    isAccessible(`${directory}/${program}`, constants.X_OK),
  );
  return isThere ? undefined : `${program} is missing: apt-get install ${debianPackage}`;
}

/** A user without any rights. */
export const nobody = 65_534;

/** What runs the command behind it as {@link nobody}, who belongs to no other group. */
export const asNobody = [
  'setpriv',
  '--reuid',
  String(nobody),
  '--regid',
  String(nobody),
  '--clear-groups',
] as const;

/** Mounts by {@link nobody}: fusermount3 with all it needs, and this clone where that user can read it. */
export function userMountObstacle(): Obstacle {
  const obstacle =
    programObstacle('setpriv', 'util-linux') ??
    programObstacle('perl', 'perl-base') ??
    programObstacle('fusermount3', 'fuse3');
  if (obstacle !== undefined) return obstacle;
  if (!existsSync('/etc/mtab')) {
    return 'fusermount3 needs /etc/mtab, as root: ln -s ../proc/self/mounts /etc/mtab';
  }
  const [program, ...args] = asNobody;
  const script = 'fs.accessSync(process.argv[1])';
  const read = spawnSync(
    program,
    [...args, process.execPath, '-e', script, join(packageRoot(), 'node_modules', 'zod')],
    { cwd: '/' },
  );
  return read.status === 0
    ? undefined
    : `other users can't run ${process.execPath} or can't read ${packageRoot()}`;
}

export function rootObstacle(): Obstacle {
  return process.getuid?.() === 0 ? undefined : 'needs root';
}

/**
 * `describe`, or where `obstacle` stands in the way a skipped one whose title says why: `[skipped: REASON]`, which
 * scripts/test.mjs counts and prints. The body still registers its tests, so that the count is right.
 */
export function describeUnless(obstacle: Obstacle, title: string, body: () => void): void {
  if (obstacle === undefined) {
    describe(title, body);
    return;
  }
  process.stderr.write(`skipped: ${title}: ${obstacle}\n`);
  describe.skip(`${title} [skipped: ${obstacle}]`, body);
}

/** Skips the running test; scripts/test.mjs prints the reason. */
export function skipBecause(context: TestContext, reason: string): void {
  Object.assign(context.task.meta, { skipReason: reason });
  context.skip(reason);
}

/** Root in a container may lack the capability; the kernel tells without mounting anything. */
function mountObstacle(): Obstacle {
  const capabilitySysAdmin = 21n;
  const status = readFileSync('/proc/self/status', 'utf8');
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  const isCapable = ((BigInt(`0x${effective}`) >> capabilitySysAdmin) & 1n) === 1n;
  return isCapable ? undefined : 'mounting is forbidden here: the container lacks CAP_SYS_ADMIN';
}

function isAccessible(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
