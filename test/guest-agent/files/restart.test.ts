import { describe, expect, test } from 'vitest';

import { failure } from '../../../guest-agent/files/linux.ts';
import { ScriptedKernel } from './scripted-kernel.ts';

const cpu = 'unencrypted/cpu';
const caller = { uid: 0, gid: 0, pid: 1 };

describe('Restart', () => {
  test('the tree is there again, with the nodes, owners, modes and bytes it had', () => {
    const kernel = new ScriptedKernel();
    kernel.makeDirectory('unencrypted/web');
    kernel.makeDirectory('unencrypted/web/eu');
    kernel.save('unencrypted/web/eu/users', '1\n');
    kernel.save('encrypted/blob', 'x');
    kernel.fileSystem.setAttributes(
      kernel.node('unencrypted/web'),
      undefined,
      { mode: 0o700 },
      caller,
    );
    kernel.commit();
    const paths = ['unencrypted/web', 'unencrypted/web/eu/users', 'encrypted/blob', 'unencrypted'];
    const before = paths.map((path) => kernel.node(path));
    kernel.restart();
    expect(paths.map((path) => kernel.node(path))).toEqual(before);
    expect(kernel.stat('unencrypted/web')).toMatchObject({ mode: 0o040700, uid: 1000 });
    expect(kernel.sizeBytes('unencrypted/web/eu/users')).toBe(2);
    expect(kernel.read('encrypted/blob')).toBe('x');
    kernel.save('unencrypted/new', '1\n');
    expect(kernel.node('unencrypted/new')).toBeGreaterThan(Math.max(...before));
  });

  test('"a handle whose writes died gets EIO and never makes a row"; reading through it goes on', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    const file = kernel.open(cpu, 'r+');
    kernel.write(file, '2\n');
    kernel.restart();
    expect(kernel.pread(file, 0, 10)).toBe('1\n');
    expect(kernel.flush(file)).toBe(failure.EIO);
    expect(kernel.write(file, '3\n')).toBe(failure.EIO);
    expect(kernel.fsync(file)).toBe(failure.EIO);
    expect(kernel.ftruncate(file, 0)).toBe(failure.EIO);
    expect(kernel.fileSystem.allocate(file.node, file.handle, 0, 1, 0)).toBe(failure.EIO);
    const other = kernel.open(cpu, 'w');
    kernel.write(other, '4\n');
    kernel.release(file);
    expect(kernel.flush(file)).toBe(failure.EIO);
    kernel.close(other);
    expect(kernel.store.published(cpu)).toEqual(['1\n', '4\n']);
  });

  test('nodes of a former process that are gone are ESTALE; forgetting them is harmless', () => {
    const kernel = new ScriptedKernel();
    kernel.save('unencrypted/a.tmp', '1\n');
    const node = kernel.node('unencrypted/a.tmp');
    kernel.restart();
    expect(kernel.fileSystem.getAttributes(node, undefined)).toBe(failure.ESTALE);
    expect(kernel.fileSystem.open(node, 0, caller)).toBe(failure.ESTALE);
    kernel.fileSystem.forget(node, 3);
    kernel.fileSystem.forget(kernel.node('unencrypted'), 100);
    expect(kernel.names('unencrypted')).toEqual([]);
  });

  test('directories that the store does not list are made', () => {
    const kernel = new ScriptedKernel();
    const attributes = { mode: 0o100644, uid: 1, gid: 1, accessedAtUs: 1, modifiedAtUs: 1 };
    const location = { area: 'unencrypted', path: 'deep/er/cpu' } as const;
    kernel.store.submit({
      kind: 'put-file',
      file: 99,
      location,
      attributes,
      truncatedToBytes: null,
    });
    kernel.store.commit();
    kernel.restart();
    expect(kernel.node('unencrypted/deep/er/cpu')).toBe(99);
  });

  test('a first save that fails after RELEASE still leaves the file', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '"bad');
    kernel.store.failNext(failure.EINVAL);
    kernel.release(file);
    kernel.commit();
    kernel.restart();
    expect(kernel.sizeBytes(cpu)).toBe(0);
  });
});
