import { execFile } from 'node:child_process';
import { chownSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { backendNames } from '../../../guest-agent/fuse/backend-capability.ts';
import { eventually } from '../../support/eventually.ts';
import {
  asNobody,
  backendObstacle,
  describeUnless,
  nobody,
  rootObstacle,
  userMountObstacle,
} from '../../support/requirements.ts';
import { launchUp, type RunningUp } from '../../support/running-up.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

// oxlint-disable-next-line typescript/strict-void-return -- promisify has a type of its own for execFile
const run = promisify(execFile);

/**
 * Starts `isobar up` as nobody in a mount namespace of its own, where /dev/fuse has the permissions `mode` and the shell
 * command `prepare` has run: the machine stays as it is.
 */
async function upAsNobody(
  dataPath: string,
  mode: string,
  backend: (typeof backendNames)[number],
  prepare = 'true',
): Promise<RunningUp> {
  chownSync(dataPath, nobody, nobody);
  const device = join(dataPath, 'device');
  const script = `mknod ${device} c 10 229 && chmod ${mode} ${device} && mount --bind ${device} /dev/fuse && rm ${device} && ${prepare} && exec "$@"`;
  return launchUp(dataPath, {
    backend,
    prefix: ['unshare', '-m', 'sh', '-c', script, 'sh', ...asNobody],
  });
}

/** A script as nobody, where the instance's mount is. */
async function inside(up: RunningUp, script: string): Promise<string> {
  const enter = ['nsenter', '-m', '-t', String(up.child.pid)];
  const [program, ...args] = [...enter, ...asNobody, 'sh', '-ec', script];
  return (await run(program, args, { timeout: 20_000 })).stdout;
}

for (const backend of backendNames) {
  const obstacle = rootObstacle() ?? backendObstacle(backend) ?? userMountObstacle();
  describeUnless(obstacle, `isobar up as a user with ${backend}`, () => {
    test('without user_allow_other: a private mount and a printed line about it', async () => {
      using directory = temporaryDirectory();
      await using up = await upAsNobody(directory.path, '666', backend);
      await eventually(() => up.output.includes('second terminal'), { timeoutMs: 20_000 });
      expect(up.output).toContain('only you see into it');
      expect(up.output.trim().split('\n').length).toBeLessThan(10);
      await inside(up, `echo 42 > ${up.file('users')}`);
      await eventually(async () => (await up.values('users')).join() === '42', {
        timeoutMs: 10_000,
      });
      expect(await inside(up, `cat ${up.file('users')}`)).toBe('42\n');
      up.child.kill('SIGINT');
      expect(await up.ended).toBe(0);
      expect(up.leftovers()).toEqual([]);
    });

    test('where /dev/fuse is closed to the user: the exact command to run and exit 78', async () => {
      using directory = temporaryDirectory();
      await using up = await upAsNobody(directory.path, '600', backend);
      expect(await up.ended).toBe(78);
      expect(up.output).toContain('as root: chmod 666 /dev/fuse');
      expect(up.leftovers()).toEqual([]);
    });
  });
}

const userObstacle = rootObstacle() ?? backendObstacle('dev-fuse') ?? userMountObstacle();
describeUnless(userObstacle, 'isobar up where fusermount3 can not unmount', () => {
  test('without /etc/mtab: says what to do, and no process is left', async () => {
    using directory = temporaryDirectory();
    using settings = temporaryDirectory();
    const copy = join(settings.path, 'etc');
    const withoutTable = `cp -a /etc ${copy} && rm ${copy}/mtab && mount --bind ${copy} /etc`;
    await using up = await upAsNobody(directory.path, '666', 'dev-fuse', withoutTable);
    await eventually(() => up.output.includes('second terminal'), { timeoutMs: 20_000 });
    up.child.kill('SIGINT');
    expect(await up.ended).toBe(1);
    expect(up.output).toContain(`as root: umount -l ${up.mountPath}`);
    expect(up.output).toContain('ln -s ../proc/self/mounts /etc/mtab');
    expect(up.output).not.toContain('AggregateError');
    expect(up.leftovers().filter((left) => left.startsWith('process'))).toEqual([]);
  });
});
