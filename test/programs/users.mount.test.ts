import { constants } from 'node:os';

import { expect } from 'vitest';

import { describePrograms } from '../support/programs/kpi-mount.ts';

const { errno } = constants;
const isRoot = process.getuid?.() === 0;
const asUser = (uid: number, script: string): string =>
  `setpriv --reuid=${uid} --regid=${uid} --clear-groups bash -c '${script}'`;

/** A system call by Python, which prints the errno that it met, or 0. */
const python = (statement: string): string =>
  `python3 -c "
import os
try:
  ${statement}
  print(0)
except OSError as error:
  print(error.errno)"`;

describePrograms('Users, names and attributes', (mount, programTest) => {
  if (isRoot) {
    programTest(
      '"applications of any user can write, files belong to the caller"',
      ['setpriv'],
      async ({ sh }) => {
        await sh(asUser(65_534, 'echo 1 > of-nobody'));
        await mount.expectRows('of-nobody', [{ column1: 1 }]);
        expect((await sh('stat -c %u:%g of-nobody')).stdout.trim()).toBe('65534:65534');
      },
    );

    programTest('"permissions hold"', ['setpriv'], async ({ sh, trySh }) => {
      await sh(asUser(1_234, 'umask 077; echo 1 > private'));
      expect((await trySh(asUser(65_534, 'cat private'))).stderr).toContain('Permission denied');
      const overwrite = await trySh(asUser(65_534, 'echo 2 > private'));
      expect(overwrite.stderr).toContain('Permission denied');
      const removal = await trySh(asUser(65_534, 'rm -f private'));
      expect(removal.stderr).toContain('Operation not permitted');
      expect((await trySh(asUser(65_534, 'chmod 666 private'))).exitCode).not.toBe(0);
      await mount.expectRows('private', [{ column1: 1 }]);
    });

    programTest('chown by root, and by nobody else', ['setpriv'], async ({ sh, trySh }) => {
      await sh('echo 1 > owned; chown 1234:1235 owned');
      expect((await sh('stat -c %u:%g owned')).stdout.trim()).toBe('1234:1235');
      expect((await trySh(asUser(1_234, 'chown 65534 owned'))).exitCode).not.toBe(0);
      await mount.expectRows('owned', [{ column1: 1 }]);
    });
  }

  programTest('chmod, touch -d and stat agree', ['bash'], async ({ sh }) => {
    await sh(
      'echo 1 > attributes; chmod 0604 attributes; touch -d 2021-05-06T07:08:09Z attributes',
    );
    const described = await sh('TZ=UTC stat -c "%a %Y %s %F" attributes');
    expect(described.stdout.trim()).toBe('604 1620284889 2 regular file');
    await mount.expectRows('attributes', [{ column1: 1 }]);
  });

  programTest('ls, find, du and df walk the mount', ['bash'], async ({ sh }) => {
    await sh('mkdir -p walk/deep; echo 1 > walk/deep/kpi; echo 2 > walk/kpi');
    await mount.expectRows('walk/deep/kpi', [{ column1: 1 }]);
    await mount.expectRows('walk/kpi', [{ column1: 2 }]);
    const found = await sh('find walk | sort');
    expect(found.stdout.trim().split('\n')).toEqual([
      'walk',
      'walk/deep',
      'walk/deep/kpi',
      'walk/kpi',
    ]);
    expect((await sh('ls -a walk')).stdout.split('\n')).toEqual(['.', '..', 'deep', 'kpi', '']);
    await sh('du -s walk; ls -laR . > /dev/null');
    const free = await sh('df --output=avail . | tail -1');
    expect(Number(free.stdout)).toBeGreaterThan(0);
  });

  programTest(
    '"unlink keeps the table", and a new file goes on in it',
    ['bash'],
    async ({ sh }) => {
      await sh('echo 1 > unlinked; rm unlinked; test ! -e unlinked; echo 2 > unlinked');
      await mount.expectRows('unlinked', [{ column1: 1 }, { column1: 2 }]);
    },
  );

  programTest(
    '"renaming a non-empty directory or across the two directories gives EXDEV"',
    ['python3'],
    async ({ sh }) => {
      await sh('mkdir -p full; echo 1 > full/kpi; mkdir empty');
      const rename = async (from: string, to: string): Promise<number> =>
        Number((await sh(python(`os.rename('${from}', '${to}')`))).stdout);
      expect(await rename('full', 'other')).toBe(errno.EXDEV);
      expect(await rename('full/kpi', '../encrypted/kpi')).toBe(errno.EXDEV);
      expect(await rename('empty', 'renamed')).toBe(0);
      await mount.expectRows('full/kpi', [{ column1: 1 }]);
    },
  );

  const refusedNames: readonly [promise: string, statement: string, code: number][] = [
    ['"sqlite_* gives EINVAL"', "open('sqlite_master', 'w')", errno.EINVAL],
    ['"non-UTF-8 EILSEQ"', String.raw`open(b'caf\xe9', 'w')`, errno.EILSEQ],
    ['nothing can be made beside the two directories', "open('../beside', 'w')", errno.EPERM],
    ['the two directories can not be removed', "os.rmdir('../encrypted')", errno.EPERM],
    ['a directory is not removed with a file in it', "os.rmdir('occupied')", errno.ENOTEMPTY],
  ];
  for (const [promise, statement, code] of refusedNames) {
    programTest(promise, ['python3'], async ({ sh }) => {
      await sh('mkdir -p occupied; test -e occupied/kpi || echo 1 > occupied/kpi');
      expect(Number((await sh(python(statement))).stdout)).toBe(code);
      await mount.expectRows('occupied/kpi', [{ column1: 1 }]);
    });
  }

  programTest(
    '"a second live file that differs only in letter case EEXIST"',
    ['python3'],
    async ({ sh }) => {
      await sh('echo 1 > Users');
      const made = await sh(python("os.open('users', os.O_WRONLY | os.O_CREAT)"));
      expect(Number(made.stdout)).toBe(errno.EEXIST);
      await mount.expectRows('Users', [{ column1: 1 }]);
    },
  );

  programTest(
    'a name with blanks, quotes and other scripts is its table',
    ['bash'],
    async ({ sh }) => {
      const file = `räksmörgås "42"; -- 'x'`;
      await sh('echo 1 > "$KPI"', { environment: { KPI: file } });
      await mount.expectRows(file, [{ column1: 1 }]);
    },
  );
});
