import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';

/** The bytes of the golden fixtures of a folder of test/golden/, those of names that `pattern` fits. */
export function goldenBytes(folder: string, pattern: RegExp): readonly Buffer[] {
  const directory = join(packageRoot(), 'test', 'golden', folder);
  return readdirSync(directory)
    .filter((name) => pattern.test(name))
    .map((name) => {
      const hex = readFileSync(join(directory, name), 'utf8').replaceAll(/\s/g, '');
      return Buffer.from(hex, 'hex');
    });
}

/** Control messages of both directions, as they go over the wire. */
export function goldenControlMessages(direction: 'up' | 'down'): readonly Buffer[] {
  const path = join(packageRoot(), 'test', 'golden', 'wire', 'control-v1-valid.json');
  const entries = JSON.parse(readFileSync(path, 'utf8')) as readonly {
    readonly direction: string;
    readonly message: object;
  }[];
  return entries
    .filter((entry) => entry.direction === direction)
    .map(({ message }) => Buffer.from(JSON.stringify(message)));
}
