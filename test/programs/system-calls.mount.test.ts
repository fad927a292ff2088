import { constants } from 'node:os';

import { expect } from 'vitest';

import type { SavedRow } from '../support/mounted-agent.ts';
import { compileC } from '../support/programs/compile-c.ts';
import { describePrograms, type ProgramContext } from '../support/programs/kpi-mount.ts';

const source = 'test/support/programs/c/system-calls.c';
const { errno } = constants;

/** Runs one case of system-calls.c on a file; returns "ok" or the errno that it met. */
async function systemCall(context: ProgramContext, name: string, file: string): Promise<string> {
  const program = await compileC(source);
  return (await context.trySh(`${program} ${name} ${file}`)).stdout.trim();
}

const saved: SavedRow = { cpu: 1, mem: 2 };

describePrograms('System calls', (mount, programTest) => {
  const oneSave: readonly [title: string, name: string, row: SavedRow][] = [
    ['pwrite in any order is one save', 'out-of-order', saved],
    ['a hole that is filled before the close is no NUL byte', 'sparse', saved],
    ['"mmap": a shared mapping written back at close', 'mmap', saved],
    ['"a handle dirty at RELEASE is saved there"', 'mmap-after-close', { cpu: 3, mem: 4 }],
    ['O_DIRECT', 'o-direct', saved],
    ['O_SYNC', 'o-sync', saved],
    ['sendfile', 'sendfile', saved],
    ['splice from a pipe', 'splice', saved],
    ['stdio of C with a flush in the middle', 'stdio', { cpu: 1, mem: 2.5 }],
    ['"until then a later commit of the same handle replaces it": fork', 'inherited', saved],
    ['kill -9 of a writer closes its file like any exit', 'killed-writer', { cpu: 1, mem: null }],
    ['"fallocate answered so that programs go on"', 'fallocate', saved],
  ];
  for (const [title, name, row] of oneSave) {
    programTest(title, ['cc'], async (context) => {
      expect(await systemCall(context, name, name)).toBe('ok');
      await mount.expectRows(name, [row]);
    });
  }

  programTest('O_RDWR without O_TRUNC starts with the last save', ['cc'], async (context) => {
    await context.sh('echo 100 > read-write');
    expect(await systemCall(context, 'read-write-without-truncation', 'read-write')).toBe('ok');
    await mount.expectRows('read-write', [{ column1: 100 }, { column1: 200 }]);
  });

  programTest('copy_file_range between two files of the mount', ['cc'], async (context) => {
    await context.sh(String.raw`printf 'cpu,mem\n1,2\n' > range.source`);
    expect(await systemCall(context, 'copy-file-range', 'range')).toBe('ok');
    await mount.expectRows('range.source', [saved]);
    await mount.expectRows('range', [saved]);
  });

  programTest('"published at fsync": what follows is another save', ['cc'], async (context) => {
    expect(await systemCall(context, 'fsync-between', 'synced')).toBe('ok');
    await mount.expectRows('synced', [{ column1: 1 }, { column1: 2 }]);
  });

  for (const lock of ['flock', 'lockf']) {
    programTest(
      `"locks stay in the kernel": two processes count under ${lock}`,
      ['cc'],
      async (context) => {
        await context.sh(`echo 100 > ${lock}`);
        expect(await systemCall(context, lock, lock)).toBe('ok');
        const counted = Array.from({ length: 41 }, (_, index) => ({ column1: 100 + index }));
        await mount.expectRows(lock, counted);
      },
    );
  }

  programTest('"only NUL bytes is no save"', ['cc'], async (context) => {
    expect(await systemCall(context, 'only-nul', 'only-nul')).toBe('ok');
    expect(mount.agent.tables('unencrypted')).not.toContain('only-nul');
  });

  const refused: readonly [title: string, name: string, errnos: readonly number[]][] = [
    ['a hard link with EPERM', 'link', [errno.EPERM]],
    ['a symbolic link with EPERM', 'symlink', [errno.EPERM]],
    ['a device node with EPERM', 'character-device', [errno.EPERM]],
    ['a FIFO with EPERM', 'fifo', [errno.EPERM]],
    ['an extended attribute with EOPNOTSUPP', 'setxattr', [errno.EOPNOTSUPP]],
    ['reading an extended attribute', 'getxattr', [errno.EOPNOTSUPP, errno.ENODATA]],
  ];
  for (const [title, name, errnos] of refused) {
    programTest(`refuses ${title}`, ['cc'], async (context) => {
      await context.sh(`echo 1 > refused-${name}`);
      const onExisting = ['link', 'setxattr', 'getxattr'].includes(name);
      const file = onExisting ? `refused-${name}` : `refused-${name}.new`;
      expect(errnos.map(String)).toContain(await systemCall(context, name, file));
      await mount.expectRows(`refused-${name}`, [{ column1: 1 }]);
    });
  }

  programTest('refuses O_TMPFILE with EOPNOTSUPP', ['cc'], async (context) => {
    expect(await systemCall(context, 'o-tmpfile', '.')).toBe(String(errno.EOPNOTSUPP));
  });
});
