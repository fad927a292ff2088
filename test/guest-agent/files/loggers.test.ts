import { describe, expect, test } from 'vitest';

import { failure } from '../../../guest-agent/files/linux.ts';
import { ScriptedKernel } from './scripted-kernel.ts';

const log = 'unencrypted/log';

describe('Loggers', () => {
  test('"on an O_APPEND handle every completed line is a row at once"', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a');
    expect(kernel.write(file, '1,')).toBe(2);
    expect(kernel.store.rows).toEqual([]);
    expect(kernel.write(file, '2\n3,4\n5')).toBe(7);
    expect(kernel.store.published(log)).toEqual(['1,2', '3,4']);
    expect(kernel.read(log)).toBe('1,2\n3,4\n');
    kernel.close(file);
    expect(kernel.store.published(log)).toEqual(['1,2', '3,4', '5']);
    expect(kernel.read(log)).toBe('1,2\n3,4\n5');
  });

  test('an unfinished line that a FLUSH sent is replaced by the finished one', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a');
    kernel.write(file, 'a,');
    kernel.flush(file);
    kernel.flush(file);
    expect(kernel.store.rows.map((row) => [row.text, row.isPublished])).toEqual([['a,', false]]);
    kernel.write(file, 'b\n');
    kernel.close(file);
    expect(kernel.store.published(log)).toEqual(['a,b']);
    expect(kernel.read(log)).toBe('a,b\n');
  });

  test('several processes append to one file', () => {
    const kernel = new ScriptedKernel();
    const left = kernel.open(log, 'a');
    const right = kernel.open(log, 'a');
    kernel.write(left, 'l1\nl');
    kernel.write(right, 'r1\n');
    kernel.write(left, '2\n');
    kernel.close(left);
    kernel.close(right);
    expect(kernel.store.published(log)).toEqual(['l1', 'r1', 'l2']);
    expect(kernel.read(log)).toBe('l1\nr1\nl2\n');
  });

  test('a handle that reads and appends sees its unfinished line', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a+');
    kernel.write(file, '1\n2');
    expect(kernel.pread(file, 0, 10)).toBe('1\n2');
    expect(kernel.fileSystem.getAttributes(file.node, file.handle)).toMatchObject({ sizeBytes: 3 });
    kernel.close(file);
  });

  test('O_APPEND with O_TRUNC, and ftruncate by the logger, begin the file anew', () => {
    const kernel = new ScriptedKernel();
    kernel.save(log, 'old\n');
    const file = kernel.open(log, 'at');
    kernel.write(file, 'new\n');
    expect(kernel.read(log)).toBe('new\n');
    kernel.ftruncate(file, 0);
    kernel.write(file, 'newer\n');
    kernel.close(file);
    kernel.restart();
    expect(kernel.read(log)).toBe('newer\n');
    expect(kernel.store.published(log)).toEqual(['old\n', 'new', 'newer']);
  });

  test('copytruncate: the logger goes on in an empty file', () => {
    const kernel = new ScriptedKernel();
    const logger = kernel.open(log, 'a');
    kernel.write(logger, '1\n2\n');
    const rotator = kernel.open(log, 'r+');
    kernel.ftruncate(rotator, 0);
    kernel.close(rotator);
    kernel.write(logger, '3\n');
    expect(kernel.read(log)).toBe('3\n');
    expect(kernel.store.published(log)).toEqual(['1', '2', '3']);
  });

  test('collectd: a directory, a file made with its labels, then appends through a second open', () => {
    const kernel = new ScriptedKernel();
    kernel.makeDirectory('unencrypted/load');
    kernel.save('unencrypted/load/load', 'epoch,value\n');
    kernel.save('unencrypted/load/load', '1,0.5\n', 'a');
    kernel.save('unencrypted/load/load', '2,0.6\n', 'a');
    expect(kernel.read('unencrypted/load/load')).toBe('epoch,value\n1,0.5\n2,0.6\n');
    expect(kernel.store.published('unencrypted/load/load')).toEqual([
      'epoch,value\n',
      '1,0.5',
      '2,0.6',
    ]);
  });

  test('a write that fails takes its bytes back: nothing of a bad line stays, a busy database gets it again', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a');
    kernel.write(file, 'x');
    kernel.store.failNext(failure.EAGAIN);
    expect(kernel.write(file, 'y\nz')).toBe(failure.EAGAIN);
    expect(kernel.write(file, 'y\n')).toBe(2);
    kernel.write(file, '"bad');
    kernel.store.failNext(failure.EINVAL);
    expect(kernel.write(file, '\n')).toBe(failure.EINVAL);
    expect(kernel.write(file, 'good\n')).toBe(5);
    expect(kernel.close(file)).toBe(0);
    expect(kernel.store.published(log)).toEqual(['xy', 'good']);
  });

  test('"a logger compacts to labels and newest row": readers see what the store made of the file', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a');
    kernel.write(file, 'epoch,value\n1,2\n');
    expect(kernel.read(log)).toBe('epoch,value\n1,2\n');
    kernel.store.compactTo.set(file.node, Buffer.from('epoch,value\n2,3\n'));
    kernel.write(file, '2,3\n');
    expect(kernel.sizeBytes(log)).toBe(16);
    expect(kernel.read(log)).toBe('epoch,value\n2,3\n');
  });

  test('a line longer than fileBytesMax is EFBIG', () => {
    const kernel = new ScriptedKernel({ fileBytesMax: 8 });
    const file = kernel.open(log, 'a');
    expect(kernel.write(file, '12345')).toBe(5);
    expect(kernel.write(file, '6789')).toBe(failure.EFBIG);
    expect(kernel.write(file, '\n')).toBe(1);
    expect(kernel.store.published(log)).toEqual(['12345']);
  });

  test('RELEASE publishes what a logger wrote: a first line that may be labels is held until then', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a');
    kernel.write(file, 'ready\n');
    kernel.close(file);
    kernel.close(kernel.open(log, 'a'));
    const publishes = kernel.store.requests.filter((request) => request.kind === 'publish');
    expect(publishes).toEqual([{ kind: 'publish', token: null, handle: file.handle }]);
  });

  test('fsync publishes an unfinished line', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open(log, 'a');
    kernel.write(file, 'a,');
    expect(kernel.fsync(file)).toBe(0);
    expect(kernel.store.published(log)).toEqual(['a,']);
  });

  test('"encrypted/ files are opaque bytes": all that a handle appends is one row', () => {
    const kernel = new ScriptedKernel();
    const file = kernel.open('encrypted/log', 'a');
    kernel.write(file, 'a\nb');
    expect(kernel.store.rows).toEqual([]);
    kernel.flush(file);
    kernel.write(file, '\nc');
    kernel.close(file);
    expect(kernel.store.published('encrypted/log')).toEqual(['a\nb\nc']);
    kernel.save('encrypted/log', 'd', 'a');
    expect(kernel.read('encrypted/log')).toBe('a\nb\ncd');
    expect(kernel.store.published('encrypted/log')).toEqual(['a\nb\nc', 'd']);
  });

  test('appends between the writes of a plain handle end with its save', () => {
    const kernel = new ScriptedKernel();
    const plain = kernel.open(log, 'w');
    kernel.write(plain, 'p1\n');
    kernel.save(log, 'appended\n', 'a');
    expect(kernel.read(log)).toBe('appended\n');
    kernel.close(plain);
    expect(kernel.read(log)).toBe('p1\n');
  });
});
