import {
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { temporaryDirectory } from '../support/temporary-directory.ts';
import { linkAlternatives, relinkInside } from '../support/test-packages.ts';

test('links of an unpacked package into /etc lead to the files that it brought, others stay', () => {
  using directory = temporaryDirectory();
  const unpacked = join(directory.path, 'unpacked');
  mkdirSync(join(unpacked, 'etc/isobar-test-jdk'), { recursive: true });
  mkdirSync(join(unpacked, 'usr/lib/jdk/conf'), { recursive: true });
  writeFileSync(join(unpacked, 'etc/isobar-test-jdk/java.security'), 'providers\n');
  const conf = join(unpacked, 'usr/lib/jdk/conf');
  symlinkSync('/etc/isobar-test-jdk/java.security', join(conf, 'java.security'));
  symlinkSync('/etc/hostname', join(conf, 'host'));
  symlinkSync('java.security', join(conf, 'beside'));
  relinkInside(unpacked);
  const moved = join(directory.path, 'moved');
  renameSync(unpacked, moved);
  const file = (name: string) => join(moved, 'usr/lib/jdk/conf', name);
  expect(readFileSync(file('java.security'), 'utf8')).toBe('providers\n');
  expect(readFileSync(file('beside'), 'utf8')).toBe('providers\n');
  expect(readlinkSync(file('host'))).toBe('/etc/hostname');
});

test('a program whose plain name only installing makes has it when unpacked: vim', () => {
  using directory = temporaryDirectory();
  mkdirSync(join(directory.path, 'usr/bin'), { recursive: true });
  writeFileSync(join(directory.path, 'usr/bin/vim.basic'), 'vim\n');
  linkAlternatives(directory.path);
  expect(readFileSync(join(directory.path, 'usr/bin/vim'), 'utf8')).toBe('vim\n');
});
