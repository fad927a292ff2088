import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';

/**
 * Paths from the package root of all files that are or would be under version control. Read from the directories, as a
 * machine that only runs the tests need not have git. `.gitignore` names directories (`dist/`) and endings (`*.log`) only.
 */
export function sourceFiles(): readonly string[] {
  const rules = readFileSync(join(packageRoot(), '.gitignore'), 'utf8').split('\n');
  const ignoredNames = new Set(['.git', ...rules.map((rule) => rule.replace(/\/$/, ''))]);
  const ignoredEndings = rules.filter((rule) => rule.startsWith('*')).map((rule) => rule.slice(1));
  const below = (directory: string): string[] =>
    readdirSync(join(packageRoot(), directory), { withFileTypes: true })
      .filter(({ name }) => !ignoredNames.has(name))
      .filter(({ name }) => !ignoredEndings.some((ending) => name.endsWith(ending)))
      .flatMap((entry) => {
        const path = join(directory, entry.name);
        return entry.isDirectory() ? below(path) : [path];
      });
  return below('.').toSorted();
}
