import assert from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The directory of our package.json, found upwards from this file, compiled or not. */
export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory);
    assert(parent !== directory, 'isobar is not inside its package');
    directory = parent;
  }
  return directory;
}

/**
 * The compiled file of a source file named from the package root (`guest-agent/main.ts`): what a thread or a
 * child process is started with. Always the compiled one, as Node 20 runs no TypeScript.
 */
export function compiledEntry(sourcePath: string): string {
  assert(sourcePath.endsWith('.ts'), `not a source file: ${sourcePath}`);
  return join(packageRoot(), 'dist', sourcePath.replace(/\.ts$/, '.js'));
}

/** The version in package.json. */
export function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8'));
  assert(typeof manifest === 'object' && manifest !== null && 'version' in manifest);
  assert(typeof manifest.version === 'string');
  return manifest.version;
}
