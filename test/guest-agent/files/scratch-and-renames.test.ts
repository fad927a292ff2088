import { describe, expect, test } from 'vitest';

import { failure } from '../../../guest-agent/files/linux.ts';
import { ScriptedKernel } from './scripted-kernel.ts';

const cpu = 'unencrypted/cpu';
const temporary = 'unencrypted/cpu.tmp';

describe('Scratch', () => {
  test('"Editors\' and copiers\' temporary names never become tables": they live in memory like ordinary files', () => {
    const kernel = new ScriptedKernel();
    const left = kernel.open(temporary, 'w');
    kernel.write(left, 'hello');
    kernel.pwrite(left, 7, 'x');
    expect(kernel.read(temporary)).toBe('hello\0\0x');
    const right = kernel.open(temporary, 'a+');
    kernel.write(right, '!');
    expect(kernel.pread(left, 0, 20)).toBe('hello\0\0x!');
    kernel.ftruncate(left, 2);
    kernel.fileSystem.allocate(left.node, left.handle, 0, 3, 0);
    expect(kernel.sizeBytes(temporary)).toBe(3);
    expect(kernel.fsync(left)).toBe(0);
    kernel.close(left);
    kernel.close(right);
    expect(kernel.store.requests).toEqual([]);
    kernel.restart();
    expect(kernel.stat(temporary)).toBe(failure.ENOENT);
  });

  test('"mkstemp-like patterns count only for files made with O_EXCL"', () => {
    const kernel = new ScriptedKernel();
    kernel.save('unencrypted/sedaB3dEf', '1\n', 'wx');
    kernel.save('unencrypted/sedimental', '1\n', 'wx');
    kernel.save('unencrypted/sedaB3dEg', '1\n');
    expect(kernel.store.rows.map((row) => row.table)).toEqual([
      'unencrypted/sedimental',
      'unencrypted/sedaB3dEg',
    ]);
  });

  test('everything in a scratch directory is scratch', () => {
    const kernel = new ScriptedKernel();
    kernel.makeDirectory('unencrypted/.~tmp~');
    kernel.save('unencrypted/.~tmp~/cpu', '1\n');
    expect(kernel.store.requests).toEqual([]);
    expect(kernel.rename('unencrypted/.~tmp~/cpu', cpu)).toBe(0);
    expect(kernel.store.published(cpu)).toEqual(['1\n']);
    expect(kernel.rename('unencrypted/.~tmp~', 'unencrypted/kept')).toBe(failure.EXDEV);
    expect(kernel.removeDirectory('unencrypted/.~tmp~')).toBe(0);
  });

  test('"A new file made with O_EXCL is published after newNameHoldMs": only its maker\'s saves say so', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n', 'wx');
    kernel.save(cpu, '2\n');
    const saves = kernel.store.requests.filter((request) => request.kind === 'save');
    expect(saves.map((save) => save.holdsNewName)).toEqual([true, false]);
  });
});

describe('Renames', () => {
  test('"renaming onto a KPI name is a save under that name": mv over, sed -i, rsync', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    const oldNode = kernel.node(cpu);
    kernel.save(temporary, '2\n');
    const newNode = kernel.node(temporary);
    expect(kernel.rename(temporary, cpu)).toBe(0);
    expect(kernel.store.published(cpu)).toEqual(['1\n', '2\n']);
    expect(kernel.store.requests.at(-1)).toMatchObject({ file: newNode, replaced: oldNode });
    expect(kernel.names('unencrypted')).toEqual(['cpu']);
    expect(kernel.read(cpu)).toBe('2\n');
    expect(kernel.fileSystem.snapshot()).toMatchObject({ scratchBytes: 0, fileCount: 1 });
    kernel.restart();
    expect(kernel.node(cpu)).toBe(newNode);
    expect(kernel.read(cpu)).toBe('2\n');
  });

  test('a rename whose save fails changes nothing', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    kernel.save(temporary, '"bad');
    const reader = kernel.open(cpu, 'r');
    kernel.store.failNext(failure.EINVAL);
    expect(kernel.rename(temporary, cpu)).toBe(failure.EINVAL);
    expect(kernel.pread(reader, 0, 9)).toBe('1\n');
    kernel.close(reader);
    expect(kernel.read(cpu)).toBe('1\n');
    expect(kernel.read(temporary)).toBe('"bad');
    expect(kernel.save(cpu, '2\n')).toBe(0);
    expect(kernel.unlink(temporary)).toBe(0);
  });

  test('while a rename is in flight the tree is the old one, and its names are busy', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    kernel.save(temporary, '2\n');
    const renaming = kernel.begin((token) => kernel.renameRequest(temporary, cpu, token));
    expect(kernel.names('unencrypted')).toEqual(['cpu', 'cpu.tmp']);
    expect(kernel.unlink(cpu)).toBe(failure.EBUSY);
    expect(renaming.result()).toBe(0);
    expect(kernel.names('unencrypted')).toEqual(['cpu']);
    kernel.begin((token) => kernel.renameRequest(cpu, 'unencrypted/new', token));
    expect(kernel.tryOpen('unencrypted/new', 'w')).toBe(failure.EBUSY);
    kernel.commit();
    expect(kernel.names('unencrypted')).toEqual(['new']);
  });

  test('a temporary file renamed while open: what was written before is saved, what comes after is another save', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(temporary, 'w');
    kernel.write(file, '1\n');
    kernel.rename(temporary, cpu);
    expect(kernel.flush(file)).toBe(0);
    expect(kernel.store.published(cpu)).toEqual(['1\n']);
    kernel.write(file, '2\n');
    kernel.close(file);
    expect(kernel.store.published(cpu)).toEqual(['1\n', '1\n2\n']);
    expect(kernel.read(cpu)).toBe('1\n2\n');
  });

  test('an empty temporary file over a KPI is no save; readers see an empty file', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    kernel.save(temporary, '');
    expect(kernel.rename(temporary, cpu)).toBe(0);
    kernel.commit();
    expect(kernel.read(cpu)).toBe('');
    kernel.restart();
    expect(kernel.read(cpu)).toBe('');
    expect(kernel.store.published(cpu)).toEqual(['1\n']);
  });

  test('vim: the KPI becomes the backup, the name is written anew, the backup goes', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    expect(kernel.rename(cpu, 'unencrypted/cpu~')).toBe(0);
    expect(kernel.read('unencrypted/cpu~')).toBe('1\n');
    expect(kernel.stat(cpu)).toBe(failure.ENOENT);
    kernel.save(cpu, '2\n');
    expect(kernel.unlink('unencrypted/cpu~')).toBe(0);
    expect(kernel.store.published(cpu)).toEqual(['1\n', '2\n']);
    expect(kernel.fileSystem.snapshot().scratchBytes).toBe(0);
  });

  test('a KPI renamed to another KPI is a save there; its open handles follow', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '1\n');
    kernel.flush(file);
    kernel.write(file, '2\n');
    kernel.begin((token) => kernel.renameRequest(cpu, 'unencrypted/load', token));
    expect(kernel.close(file)).toBe(0);
    expect(kernel.store.published('unencrypted/load')).toEqual(['1\n2\n']);
    expect(kernel.store.published(cpu)).toEqual([]);
    kernel.restart();
    expect(kernel.read('unencrypted/load')).toBe('1\n2\n');
  });

  test('"onto a rotation name (.1, .old, a date) never is": the logger goes on under the KPI\'s name', () => {
    const kernel = new ScriptedKernel();
    const logger = kernel.open(cpu, 'a');
    kernel.write(logger, '1\n');
    kernel.save('unencrypted/plain', 'x\n');
    expect(kernel.rename('unencrypted/plain', 'unencrypted/plain.old')).toBe(0);
    expect(kernel.rename(cpu, 'unencrypted/cpu.1')).toBe(0);
    kernel.write(logger, '2\n');
    kernel.close(logger);
    kernel.save(cpu, '3\n', 'a');
    expect(kernel.store.published(cpu)).toEqual(['1', '2', '3']);
    expect(kernel.store.rows).toHaveLength(4);
    expect(kernel.read('unencrypted/cpu.1')).toBe('1\n2\n');
    expect(kernel.rename('unencrypted/cpu.1', 'unencrypted/cpu.2')).toBe(0);
    expect(kernel.rename(cpu, 'unencrypted/cpu.2')).toBe(0);
    kernel.restart();
    expect(kernel.read('unencrypted/cpu.2')).toBe('3\n');
    expect(kernel.names('unencrypted').toSorted()).toEqual(['cpu.2', 'plain.old']);
  });

  test('gzip of a rotated file stays in memory', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    kernel.rename(cpu, 'unencrypted/cpu.1');
    kernel.save('unencrypted/cpu.1.gz', '\x1f\x8b', 'wx');
    kernel.unlink('unencrypted/cpu.1');
    expect(kernel.rename('unencrypted/cpu.1.gz', 'unencrypted/cpu.2.gz')).toBe(0);
    expect(kernel.store.rows).toHaveLength(1);
  });

  test('a file without a save moves without one', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    expect(kernel.rename(cpu, 'unencrypted/load')).toBe(0);
    kernel.write(file, '1\n');
    kernel.close(file);
    kernel.save('unencrypted/empty', '');
    expect(kernel.rename('unencrypted/empty', 'unencrypted/other')).toBe(0);
    expect(kernel.store.rows.map((row) => row.table)).toEqual(['unencrypted/load']);
    kernel.restart();
    expect(kernel.names('unencrypted')).toEqual(['load', 'other']);
  });

  test('RENAME_NOREPLACE is EEXIST over a file, RENAME_EXCHANGE and others EINVAL, a file over a directory EISDIR', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    kernel.save('unencrypted/mem', '2\n');
    kernel.makeDirectory('unencrypted/web');
    expect(kernel.rename(cpu, 'unencrypted/mem', 1)).toBe(failure.EEXIST);
    expect(kernel.rename(cpu, 'unencrypted/mem', 2)).toBe(failure.EINVAL);
    expect(kernel.rename(cpu, 'unencrypted/mem', 4)).toBe(failure.EINVAL);
    expect(kernel.rename(cpu, 'unencrypted/web')).toBe(failure.EISDIR);
    expect(kernel.rename('unencrypted/web', cpu)).toBe(failure.ENOTDIR);
    expect(kernel.rename(cpu, cpu)).toBe(0);
    expect(kernel.rename('unencrypted/none', cpu)).toBe(failure.ENOENT);
    expect(kernel.rename(cpu, 'unencrypted/new', 1)).toBe(0);
  });

  test('handles of a replaced file go on: a late save is a row, and does not touch the new file', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '1\n');
    const writer = kernel.open(cpu, 'r+');
    kernel.write(writer, '2\n');
    kernel.save(temporary, '3\n');
    kernel.rename(temporary, cpu);
    expect(kernel.close(writer)).toBe(0);
    expect(kernel.store.published(cpu)).toEqual(['1\n', '3\n', '2\n']);
    expect(kernel.read(cpu)).toBe('3\n');
  });
});
