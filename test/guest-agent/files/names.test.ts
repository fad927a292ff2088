import { describe, expect, test } from 'vitest';

import { failure } from '../../../guest-agent/files/linux.ts';
import { defaultNamePatterns, NameRules } from '../../../guest-agent/files/name-rules.ts';
import { ScriptedKernel } from './scripted-kernel.ts';

const rules = new NameRules(defaultNamePatterns);
const cpu = 'unencrypted/cpu';

describe('NameRules', () => {
  test.each([
    '.cpu.swp',
    '.cpu.swx',
    'cpu~',
    '#cpu#',
    '.#cpu',
    'cpu.tmp',
    'cpu.part',
    'cpu.123456789',
  ])('%s is scratch', (name) => {
    expect(rules.ofNewFile(name, false)).toBe('scratch');
  });

  test.each(['4913', 'sedA1b2C3', '.cpu.Xy12ab', 'tmpabcd1234', 'cpu.1.gz', 'cpu.1'])(
    '%s is scratch only when made with O_EXCL',
    (name) => {
      expect([rules.ofNewFile(name, false), rules.ofNewFile(name, true)]).toEqual([
        'kpi',
        'scratch',
      ]);
    },
  );

  test.each([
    'cpu.1',
    'cpu.old',
    'cpu-20240101',
    'cpu.2024-01-01',
    'cpu.gz',
    'cpu-20240101-120000',
    'cpu.1700000000',
  ])('renaming onto %s is rotation', (name) => {
    expect(rules.ofRenameTarget(name)).toBe('rotation');
  });

  test.each(['cpu', 'latency.memory', 'users.new', 'a.b', 'p99', 'disk-1234', 'tmpfs', '.hidden'])(
    '%s is a KPI however it is made',
    (name) => {
      expect([rules.ofNewFile(name, true), rules.ofRenameTarget(name)]).toEqual(['kpi', 'kpi']);
    },
  );

  test('characters of regular expressions stand for themselves', () => {
    const odd = new NameRules({
      scratch: ['a+b.(c)', '[!x]y'],
      exclusiveScratch: [],
      rotation: [],
    });
    expect(['a+b.(c)', 'aab.(c)', 'zy', 'xy'].map((name) => odd.ofNewFile(name, false))).toEqual([
      'scratch',
      'kpi',
      'scratch',
      'kpi',
    ]);
  });
});

describe('Names', () => {
  test('"The mount shows encrypted/ and unencrypted/", like /tmp, and nothing can be made beside them', () => {
    const kernel = new ScriptedKernel();
    expect(kernel.fileSystem.readDirectory(1)).toEqual([
      { name: 'encrypted', node: 2, type: 0o040000 },
      { name: 'unencrypted', node: 3, type: 0o040000 },
    ]);
    expect(kernel.stat('encrypted')).toMatchObject({ mode: 0o041777, linkCount: 2 });
    expect(kernel.tryOpen('cpu', 'w')).toBe(failure.EPERM);
    expect(kernel.makeDirectory('other')).toBe(failure.EPERM);
    expect(kernel.removeDirectory('encrypted')).toBe(failure.EPERM);
    expect(kernel.rename('encrypted', 'unencrypted/x')).toBe(failure.EPERM);
  });

  test('"Sub-directories work"; "renaming a non-empty directory or across the two directories gives EXDEV"', () => {
    const kernel = new ScriptedKernel();
    expect(kernel.makeDirectory('unencrypted/web')).toBe(0);
    expect(kernel.makeDirectory('unencrypted/web')).toBe(failure.EEXIST);
    expect(kernel.save('unencrypted/web/users', '1\n')).toBe(0);
    expect(kernel.store.published('unencrypted/web/users')).toEqual(['1\n']);
    expect(kernel.stat('unencrypted')).toMatchObject({ linkCount: 3 });
    expect(kernel.rename('unencrypted/web', 'unencrypted/site')).toBe(failure.EXDEV);
    expect(kernel.rename('unencrypted/web/users', 'encrypted/users')).toBe(failure.EXDEV);
    expect(kernel.removeDirectory('unencrypted/web')).toBe(failure.ENOTEMPTY);
    expect(kernel.unlink('unencrypted/web/users')).toBe(0);
    expect(kernel.rename('unencrypted/web', 'unencrypted/site')).toBe(0);
    expect(kernel.save('unencrypted/site/users', '2\n')).toBe(0);
    kernel.restart();
    expect(kernel.read('unencrypted/site/users')).toBe('2\n');
    expect(kernel.unlink('unencrypted/site/users')).toBe(0);
    expect(kernel.removeDirectory('unencrypted/site')).toBe(0);
    kernel.commit();
    kernel.restart();
    expect(kernel.names('unencrypted')).toEqual([]);
  });

  test('"sqlite_* gives EINVAL", "a second live file that differs only in letter case EEXIST"', () => {
    const kernel = new ScriptedKernel();
    expect(kernel.tryOpen('unencrypted/sqlite_x', 'w')).toBe(failure.EINVAL);
    expect(kernel.makeDirectory('unencrypted/SQLITE_dir')).toBe(failure.EINVAL);
    kernel.save(cpu, '1\n');
    expect(kernel.tryOpen('unencrypted/CPU', 'w')).toBe(failure.EEXIST);
    expect(kernel.makeDirectory('unencrypted/Cpu')).toBe(failure.EEXIST);
    kernel.save('unencrypted/mem', '1\n');
    expect(kernel.rename('unencrypted/mem', 'unencrypted/Cpu')).toBe(failure.EEXIST);
    expect(kernel.rename(cpu, 'unencrypted/CPU')).toBe(0);
    expect(kernel.names('unencrypted')).toEqual(['mem', 'CPU']);
  });

  test('"Unlink keeps the table", and the name is free again', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    expect(kernel.unlink(cpu)).toBe(0);
    expect(kernel.stat(cpu)).toBe(failure.ENOENT);
    kernel.save(cpu, '2\n');
    expect(kernel.store.published(cpu)).toEqual(['1\n', '2\n']);
    expect(kernel.read(cpu)).toBe('2\n');
  });

  test('an unlink that the store refuses leaves the file', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    kernel.store.failNext(failure.EIO);
    const reader = kernel.open(cpu, 'r');
    expect(kernel.unlink(cpu)).toBe(failure.EIO);
    kernel.close(reader);
    expect(kernel.read(cpu)).toBe('1\n');
    expect(kernel.save(cpu, '2\n')).toBe(0);
    expect(kernel.unlink(cpu)).toBe(0);
  });

  test('handles of an unlinked file go on: readers read, a save is a row under its last name', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    const reader = kernel.open(cpu, 'r');
    const writer = kernel.open(cpu, 'w');
    kernel.write(writer, '2\n');
    kernel.unlink(cpu);
    expect(kernel.pread(reader, 0, 10)).toBe('1\n');
    expect(kernel.close(writer)).toBe(0);
    kernel.close(reader);
    expect(kernel.store.published(cpu)).toEqual(['1\n', '2\n']);
    kernel.restart();
    expect(kernel.stat(cpu)).toBe(failure.ENOENT);
    expect(kernel.fileSystem.snapshot().scratchBytes).toBe(0);
  });

  test('new files belong to the caller; a set-group-id directory hands its group down', () => {
    const kernel = new ScriptedKernel();
    kernel.makeDirectory('unencrypted/shared');
    const node = kernel.node('unencrypted/shared');
    const root = { uid: 0, gid: 0, pid: 1 };
    kernel.fileSystem.setAttributes(node, undefined, { mode: 0o2775, gid: 7 }, root);
    kernel.save('unencrypted/shared/users', '1\n');
    kernel.makeDirectory('unencrypted/shared/below');
    expect(kernel.stat('unencrypted/shared/users')).toMatchObject({ uid: 1000, gid: 7 });
    expect(kernel.stat('unencrypted/shared/below')).toMatchObject({ gid: 7, mode: 0o042755 });
    kernel.save(cpu, '1\n');
    kernel.fileSystem.setAttributes(kernel.node(cpu), undefined, { mode: 0o6755 }, root);
    kernel.fileSystem.setAttributes(kernel.node(cpu), undefined, { uid: 5 }, root);
    expect(kernel.stat(cpu)).toMatchObject({ mode: 0o100755, uid: 5, gid: 1000 });
  });

  test('mknod makes regular files only, and they outlive a restart', () => {
    const kernel = new ScriptedKernel();
    const caller = { uid: 1, gid: 1, pid: 1 };
    const parent = kernel.node('unencrypted');
    expect(kernel.fileSystem.makeNode(parent, 'fifo', 0o010644, caller)).toBe(failure.EPERM);
    expect(kernel.fileSystem.makeNode(parent, 'file', 0o100600, caller)).toMatchObject({ uid: 1 });
    expect(kernel.fileSystem.makeNode(parent, 'file', 0o100600, caller)).toBe(failure.EEXIST);
    kernel.commit();
    kernel.restart();
    expect(kernel.stat('unencrypted/file')).toMatchObject({ mode: 0o100600, sizeBytes: 0 });
  });
});

describe('Bounds', () => {
  test('file bytes: EFBIG at write, ftruncate and truncate', () => {
    const kernel = new ScriptedKernel({ fileBytesMax: 4 });
    const file = kernel.open(cpu, 'w');
    expect(kernel.write(file, '12345')).toBe(failure.EFBIG);
    expect(kernel.pwrite(file, 4, '1')).toBe(failure.EFBIG);
    expect(kernel.ftruncate(file, 5)).toBe(failure.EFBIG);
    expect(kernel.write(file, '1234')).toBe(4);
    expect(kernel.close(file)).toBe(0);
    expect(kernel.truncate(cpu, 5)).toBe(failure.EFBIG);
    expect(kernel.fileSystem.snapshot().counts.dropped).toBe(4);
  });

  test('files and directories: ENOSPC', () => {
    const kernel = new ScriptedKernel({ filesMax: 3, directoriesMax: 1 });
    expect(kernel.makeDirectory('unencrypted/a')).toBe(0);
    expect(kernel.makeDirectory('unencrypted/b')).toBe(failure.ENOSPC);
    expect(kernel.save('unencrypted/c', '1\n')).toBe(0);
    expect(kernel.save('unencrypted/d.tmp', '1\n')).toBe(0);
    expect(kernel.save('unencrypted/e', '1\n')).toBe(failure.ENOSPC);
    kernel.unlink('unencrypted/d.tmp');
    expect(kernel.save('unencrypted/e', '1\n')).toBe(0);
    expect(kernel.fileSystem.statistics()).toMatchObject({ files: 3, freeFiles: 0 });
  });

  test('statfs counts what the database has: no free blocks at its bound, never less than none', () => {
    const kernel = new ScriptedKernel({ capacityBytes: 409_600 });
    expect(kernel.fileSystem.statistics()).toMatchObject({ blocks: 100, freeBlocks: 100 });
    kernel.storedBytes = 204_800;
    expect(kernel.fileSystem.statistics()).toMatchObject({ blocks: 100, freeBlocks: 50 });
    kernel.storedBytes = 500_000;
    expect(kernel.fileSystem.statistics()).toMatchObject({ blocks: 100, freeBlocks: 0 });
    expect(kernel.save('unencrypted/goes-on', '1\n')).toBe(0);
  });

  test('handles: ENFILE', () => {
    const kernel = new ScriptedKernel({ handlesMax: 2 });
    const first = kernel.open(cpu, 'w');
    kernel.open(cpu, 'r');
    expect(kernel.tryOpen(cpu, 'r')).toBe(failure.ENFILE);
    expect(kernel.tryOpen('unencrypted/new', 'w')).toBe(failure.ENFILE);
    kernel.close(first);
    expect(kernel.tryOpen(cpu, 'r')).toMatchObject({ descriptorCount: 1 });
  });

  test('scratch bytes, and bytes that handles hold: ENOSPC', () => {
    const kernel = new ScriptedKernel({ scratchBytesMax: 100, bufferBytesMax: 200 });
    const scratch = kernel.open('unencrypted/a.tmp', 'w');
    expect(kernel.write(scratch, 'x'.repeat(100))).toBe(100);
    expect(kernel.save('unencrypted/b.tmp', 'x')).toBe(failure.ENOSPC);
    kernel.close(scratch);
    kernel.save(cpu, 'y'.repeat(50));
    expect(kernel.rename(cpu, 'unencrypted/cpu~')).toBe(failure.ENOSPC);
    expect(kernel.unlink('unencrypted/a.tmp')).toBe(0);
    expect(kernel.rename(cpu, 'unencrypted/cpu~')).toBe(0);
    const file = kernel.open(cpu, 'w');
    expect(kernel.write(file, 'x'.repeat(201))).toBe(failure.ENOSPC);
    expect(kernel.write(file, 'x')).toBe(1);
    kernel.close(file);
    expect(kernel.fileSystem.snapshot()).toMatchObject({ bufferBytes: 0, handleCount: 0 });
  });

  test('path bytes: ENAMETOOLONG', () => {
    const kernel = new ScriptedKernel({ pathBytesMax: 10 });
    expect(kernel.tryOpen('unencrypted/12345678901', 'w')).toBe(failure.ENAMETOOLONG);
    expect(kernel.tryOpen('unencrypted/ééééé1', 'w')).toBe(failure.ENAMETOOLONG);
    expect(kernel.makeDirectory('unencrypted/12345')).toBe(0);
    expect(kernel.tryOpen('unencrypted/12345/67890', 'w')).toBe(failure.ENAMETOOLONG);
    expect(kernel.tryOpen(`unencrypted/${'x'.repeat(256)}`, 'w')).toBe(failure.ENAMETOOLONG);
  });
});
