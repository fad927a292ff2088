import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { basename, join } from 'node:path';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import { mustRun } from './run-program.ts';

/**
 * Compiles a C file (path from the package root) into `.cache/programs/`, once for each content and set of flags.
 * Returns the path of the program.
 */
export async function compileC(sourcePath: string, flags: readonly string[] = []): Promise<string> {
  const source = join(packageRoot(), sourcePath);
  const digest = createHash('sha256')
    .update(readFileSync(source))
    .update(flags.join(' '))
    .digest('hex');
  const directory = join(packageRoot(), '.cache', 'programs');
  const program = join(directory, `${basename(sourcePath, '.c')}-${digest.slice(0, 12)}`);
  if (existsSync(program)) return program;
  mkdirSync(directory, { recursive: true });
  const staging = `${program}.${process.pid}`;
  await mustRun('cc', ['-O2', '-Wall', '-Wextra', '-o', staging, source, ...flags]);
  renameSync(staging, program);
  return program;
}
