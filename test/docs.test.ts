import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

import { describe, expect, test } from 'vitest';

import { packageRoot } from '../common/runtime/package-root.ts';
import { runIsobar } from './support/command-line.ts';

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: packageRoot(),
  encoding: 'utf8',
}).split('\n');
const documents = files.filter((path) => path.endsWith('.md'));

function read(path: string): string {
  return readFileSync(join(packageRoot(), path), 'utf8');
}

/** Paths in backticks that begin with a folder of ours, and links to files. */
function pathsNamedIn(document: string): string[] {
  const text = read(document).replaceAll(/```[\s\S]*?```/g, '');
  const folders =
    'bench|broker|cli|common|docs|guest-agent|host-collector|primary-site|scripts|test';
  const quoted = Array.from(
    text.matchAll(new RegExp(`\`((?:${folders})/[A-Za-z0-9_./-]*)\``, 'g')),
    ([, path = '']) => path,
  );
  const linked = Array.from(text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g), ([, path = '']) =>
    normalize(join(dirname(document), path)),
  );
  return [...quoted, ...linked];
}

describe('the documents', () => {
  test('are there: what people expect of a repository', () => {
    for (const path of ['README.md', 'LICENSE', 'CHANGELOG.md', 'CONTRIBUTING.md']) {
      expect(files).toContain(path);
    }
    expect(read('LICENSE')).toContain('Apache License');
    expect(documents).toContain('docs/ARCHITECTURE.md');
  });

  test('every path named in the docs exists', () => {
    const named = documents.flatMap((document) =>
      pathsNamedIn(document).map((path) => ({ document, path })),
    );
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter(({ path }) => !existsSync(join(packageRoot(), path)))).toEqual([]);
  });

  test('every isobar command named in the docs exists', async () => {
    const commands = documents.flatMap((document) =>
      Array.from(
        read(document).matchAll(/(?:^|[`$ ])(?:npx )?isobar ((?:[a-z]+)(?: [a-z-]+)?)/gm),
        ([, words = '']) => words.split(' '),
      ),
    );
    const { lines } = await runIsobar(['--help']);
    const known = Array.from(
      lines.join('\n').matchAll(/^ {2}([a-z]+) /gm),
      ([, name = '']) => name,
    );
    const commandNames = commands
      .map(([name = '']) => name)
      .filter((name) => !proseAfter.has(name));
    expect(known).toContain('watch');
    expect(commandNames.length).toBeGreaterThan(3);
    expect(commandNames.filter((name) => !known.includes(name))).toEqual([]);
  });

  test('every npm script named in the docs exists', () => {
    const manifest = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const scripts = documents.flatMap((document) =>
      Array.from(
        read(document).matchAll(/npm (?:run ([a-z:]+)|(start|test)\b)/g),
        ([, run, short]) => run ?? short ?? '',
      ),
    );
    expect(scripts).toContain('start');
    expect(scripts.filter((name) => !(name in manifest.scripts))).toEqual([]);
  });
});

/** Words that follow the name in prose. */
const proseAfter = new Set(['command', 'is', 'runs']);
