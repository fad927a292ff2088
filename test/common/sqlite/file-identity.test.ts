import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { fileIdentity } from '../../../common/sqlite/file-identity.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

test('a file that got the inode number of a removed one is another file', () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, 'database');
  const seen = new Map<string, number>();
  const attempts = 50;
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    writeFileSync(path, String(attempt));
    seen.set(fileIdentity(path), statSync(path).ino);
    rmSync(path);
  }
  expect(seen.size).toBe(attempts);
  // Unless numbers come again the test would show nothing.
  expect(new Set(seen.values()).size).toBeLessThan(attempts);
});

test('writing to a file and its times leaves it the same file', () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, 'database');
  writeFileSync(path, 'one');
  const before = fileIdentity(path);
  writeFileSync(path, 'another');
  expect(fileIdentity(path)).toBe(before);
});
