import { describe, expect, test } from 'vitest';

import { failure } from '../../../guest-agent/files/linux.ts';
import { ScriptedKernel } from './scripted-kernel.ts';

const cpu = 'unencrypted/cpu';

function saveRequests(kernel: ScriptedKernel) {
  return kernel.store.requests.filter((request) => request.kind === 'save');
}

describe('Saves', () => {
  test('"Durable before close returns": FLUSH is answered by the commit, or fails with its errno', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '42\n');
    const closing = kernel.begin((token) =>
      kernel.fileSystem.flush(file.node, file.handle, { uid: 0, gid: 0, pid: 1 }, token),
    );
    expect(() => closing.result()).toThrow('not answered');
    kernel.commit();
    expect(closing.result()).toBe(0);
    kernel.store.failNext(failure.ENOSPC);
    expect(kernel.save(cpu, '43\n')).toBe(failure.ENOSPC);
  });

  test('"A FLUSH with nothing new commits nothing"', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.dup(file);
    expect(kernel.close(file)).toBe(0);
    kernel.write(file, '42\n');
    kernel.dup(file);
    expect(kernel.close(file)).toBe(0);
    expect(kernel.close(file)).toBe(0);
    expect(saveRequests(kernel)).toHaveLength(1);
    expect(kernel.store.published('unencrypted/cpu')).toEqual(['42\n']);
  });

  test('"{ echo cpu,mem; echo 1,2; } > f": several FLUSHes of one handle, one final save', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.dup(file);
    kernel.close(file);
    kernel.write(file, 'cpu,mem\n');
    kernel.flush(file);
    kernel.write(file, '1,2\n');
    expect(kernel.store.published('unencrypted/cpu')).toEqual([]);
    kernel.close(file);
    expect(kernel.store.rows.map((row) => row.text)).toEqual(['cpu,mem\n1,2\n']);
    expect(kernel.store.published('unencrypted/cpu')).toEqual(['cpu,mem\n1,2\n']);
  });

  test('a close beside one in flight waits for the commit too', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '42\n');
    const caller = { uid: 0, gid: 0, pid: 1 };
    const flush = () =>
      kernel.begin((token) => kernel.fileSystem.flush(file.node, file.handle, caller, token));
    const closings = [flush(), flush()];
    expect(() => closings[1]!.result()).toThrow('not answered');
    kernel.store.failNext(failure.EINVAL, failure.EINVAL);
    kernel.commit();
    expect(closings.map((closing) => closing.result())).toEqual([failure.EINVAL, failure.EINVAL]);
  });

  test('"A handle dirty at RELEASE (mmap, inherited descriptors) is saved there"', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '42\n');
    kernel.release(file);
    expect(saveRequests(kernel)[0]).toMatchObject({ token: null, publishes: true });
    expect(kernel.read(cpu)).toBe('42\n');
  });

  test('"A truncation, an empty file or only NUL bytes is no save"', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, '42\n');
    kernel.save('unencrypted/empty', '');
    kernel.save('unencrypted/nul', '\0\0\0');
    kernel.save('encrypted/nul', '\0');
    kernel.truncate(cpu, 2);
    const file = kernel.open(cpu, 'r+');
    kernel.ftruncate(file, 1);
    kernel.close(file);
    kernel.close(kernel.open(cpu, 'w'));
    expect(saveRequests(kernel)).toHaveLength(1);
    expect(kernel.read(cpu)).toBe('');
    kernel.restart();
    expect(kernel.read(cpu)).toBe('');
    expect(kernel.names('unencrypted')).toEqual(expect.arrayContaining(['cpu', 'empty', 'nul']));
  });

  test('"While a file lives, reading it gives exactly the bytes of its last save", the writer sees its own', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, 'old\n');
    const file = kernel.open(cpu, 'w+');
    expect(kernel.pread(file, 0, 10)).toBe('');
    kernel.write(file, 'new\n');
    expect(kernel.pread(file, 0, 10)).toBe('new\n');
    expect(kernel.read(cpu)).toBe('old\n');
    kernel.close(file);
    expect(kernel.read(cpu)).toBe('new\n');
    expect(kernel.sizeBytes(cpu)).toBe(4);
  });

  test('"after a failed close it gives the last good save", and the handle is retried only after a change', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, 'good\n');
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '"bad');
    kernel.store.failNext(failure.EINVAL);
    expect(kernel.flush(file)).toBe(failure.EINVAL);
    expect(kernel.read(cpu)).toBe('good\n');
    kernel.write(file, '"\n');
    expect(kernel.flush(file)).toBe(0);
    kernel.write(file, '"');
    kernel.store.failNext(failure.EINVAL);
    expect(kernel.close(file)).toBe(failure.EINVAL);
    expect(saveRequests(kernel)).toHaveLength(4);
    expect(kernel.read(cpu)).toBe('"bad"\n');
    expect(kernel.fileSystem.snapshot().counts).toMatchObject({ forwarded: 2, failed: 2 });
  });

  test('"Content is buffered per handle": O_RDWR without O_TRUNC starts from the last good content', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, 'abcdef\n');
    const left = kernel.open(cpu, 'r+');
    const right = kernel.open(cpu, 'r+');
    kernel.pwrite(left, 0, 'X');
    kernel.pwrite(right, 5, 'Y');
    kernel.close(left);
    expect(kernel.read(cpu)).toBe('Xbcdef\n');
    kernel.close(right);
    expect(kernel.read(cpu)).toBe('abcdeY\n');
  });

  test('out-of-order and sparse writes, ftruncate and fallocate make one content', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.pwrite(file, 4, 'ef');
    kernel.pwrite(file, 0, 'ab');
    kernel.ftruncate(file, 5);
    kernel.fileSystem.allocate(file.node, file.handle, 0, 7, 0);
    kernel.fileSystem.allocate(file.node, file.handle, 0, 1, 3);
    kernel.close(file);
    expect(kernel.store.published('unencrypted/cpu')).toEqual(['\0b\0\0e\0\0']);
  });

  test('fsync saves and publishes', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '1\n');
    expect(kernel.fsync(file)).toBe(0);
    expect(kernel.store.published('unencrypted/cpu')).toEqual(['1\n']);
    kernel.write(file, '2\n');
    kernel.flush(file);
    expect(kernel.fsync(file)).toBe(0);
    expect(kernel.store.published('unencrypted/cpu')).toEqual(['1\n', '1\n2\n']);
    expect(kernel.fsync(file)).toBe(0);
    kernel.close(file);
    expect(saveRequests(kernel)).toHaveLength(2);
  });

  test('a reader of several pieces gets one save from its first byte to its last', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, 'aaaa\n');
    const reader = kernel.open(cpu, 'r');
    expect(kernel.pread(reader, 0, 2)).toBe('aa');
    kernel.save(cpu, 'bbbbbb\n');
    expect(kernel.pread(reader, 2, 10)).toBe('aa\n');
    expect(kernel.pread(reader, 5, 10)).toBe('b\n');
    expect(kernel.pread(reader, 0, 10)).toBe('bbbbbb\n');
    kernel.close(reader);
    expect(kernel.fileSystem.snapshot().bufferBytes).toBe(0);
  });

  test('a write between a FLUSH and its outcome does not leak into what readers see', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, 'one\n');
    const caller = { uid: 0, gid: 0, pid: 1 };
    kernel.begin((token) => kernel.fileSystem.flush(file.node, file.handle, caller, token));
    kernel.fileSystem.write(file.node, file.handle, 0, Buffer.from('two'), caller, 0n);
    kernel.commit();
    expect(kernel.read(cpu)).toBe('one\n');
    kernel.close(file);
    expect(kernel.read(cpu)).toBe('two\n');
  });

  test('a bounded cache reads again from the store what it had to drop', () => {
    const kernel = new ScriptedKernel({ cacheBytesMax: 1_000 });
    for (let index = 0; index < 20; index += 1) kernel.save(`unencrypted/k${index}`, `${index}\n`);
    expect(kernel.fileSystem.snapshot().cacheBytes).toBeLessThanOrEqual(1_000);
    for (let index = 0; index < 20; index += 1) {
      expect(kernel.read(`unencrypted/k${index}`)).toBe(`${index}\n`);
    }
    expect(kernel.store.contentReadCount).toBeGreaterThan(10);
  });

  test('a save at RELEASE that the store could commit only later is what readers see from then on', () => {
    const kernel = new ScriptedKernel();
    kernel.save(cpu, 'old\n');
    const file = kernel.open(cpu, 'w');
    kernel.write(file, 'newer\n');
    kernel.store.failNext(failure.EAGAIN);
    kernel.release(file);
    expect(kernel.read(cpu)).toBe('old\n');
    kernel.store.submit(saveRequests(kernel)[1]!);
    kernel.commit();
    expect(kernel.sizeBytes(cpu)).toBe(6);
    expect(kernel.read(cpu)).toBe('newer\n');
  });

  test('times that a copier sets on the open file are saved with it', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(cpu, 'w');
    kernel.write(file, '1\n');
    const caller = { uid: 1000, gid: 1000, pid: 1 };
    const change = { modifiedAtUs: 5, accessedAtUs: 6, mode: 0o600 };
    kernel.fileSystem.setAttributes(file.node, file.handle, change, caller);
    kernel.close(file);
    expect(kernel.stat(cpu)).toMatchObject({ modifiedAtUs: 5, mode: 0o100600, uid: 1000 });
    kernel.restart();
    expect(kernel.stat(cpu)).toMatchObject({ modifiedAtUs: 5, mode: 0o100600, uid: 1000 });
  });
});
