import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import type { CommandContext } from '../cli/context.ts';
import { documentKinds } from '../cli/process-kinds.ts';
import { buildProgram } from '../cli/program.ts';
import { createStyle } from '../cli/text/style.ts';
import { SystemClock } from '../common/runtime/clock.ts';
import { packageRoot } from '../common/runtime/package-root.ts';
import { SystemRandom } from '../common/runtime/random.ts';
import { sourceFiles } from './support/source-files.ts';

const files = sourceFiles();
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
    for (const path of [
      'README.md',
      'LICENSE',
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      '.editorconfig',
    ]) {
      expect(files).toContain(path);
    }
    expect(read('LICENSE')).toContain('Apache License');
    expect(JSON.parse(read('package.json'))).toMatchObject({ license: 'Apache-2.0' });
    expect(documents).toContain('docs/ARCHITECTURE.md');
  });

  test('every path named in the docs exists', () => {
    const named = documents.flatMap((document) =>
      pathsNamedIn(document).map((path) => ({ document, path })),
    );
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter(({ path }) => !existsSync(join(packageRoot(), path)))).toEqual([]);
  });

  test('every isobar command named in the docs exists', () => {
    const program = buildProgram(commandContext());
    const commands = documents.flatMap((document) =>
      Array.from(
        read(document).matchAll(/(?:^|[`$ (])(?:npx )?isobar ([a-z]+)(?: ([a-z-]+))?/gm),
        ([, name = '', child = '']) => ({ document, name, child }),
      ).filter(({ name }) => !proseAfter.has(name)),
    );
    const unknown = commands.filter(({ name, child }) => {
      if (name === 'help') return false;
      const command = program.commands.find((each) => each.name() === name);
      const children = command?.commands ?? [];
      // A word after a command that has children names one of them.
      return (
        command === undefined ||
        (child !== '' && children.length > 0 && !children.some((each) => each.name() === child))
      );
    });
    expect(commands.length).toBeGreaterThan(10);
    expect(unknown).toEqual([]);
  });

  test('every key of a configuration is documented with its meaning', () => {
    const sections = read('docs/CONFIGURATION.md').split(/^## /m);
    const wrong = Object.entries(documentKinds).flatMap(([kind, { schema }]) => {
      const section = sections.find((text) => text.startsWith(`${kind}\n`)) ?? '';
      const meanings = meaningsIn(section);
      const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
      return keysOf(json as JsonSchema, '')
        .filter(({ key, description }) => {
          const meaning = meanings.get(key) ?? '';
          return meaning === '' || (description !== undefined && meaning !== description);
        })
        .map(({ key }) => `${kind}: ${key}`);
    });
    expect(wrong).toEqual([]);
  });

  test('every key of a VM descriptor says its meaning in the JSON Schema too', () => {
    const schema = JSON.parse(read('docs/schema/vm-descriptor.schema.json')) as JsonSchema;
    expect(keysOf(schema, '').length).toBeGreaterThan(30);
    expect(keysOf(schema, '').filter(({ description = '' }) => description === '')).toEqual([]);
  });

  test('OPERATING answers what an operator asks', () => {
    const titles = Array.from(
      read('docs/OPERATING.md').matchAll(/^## (.+)$/gm),
      ([, title]) => title,
    );
    expect(titles).toEqual([
      'A federation of three sites',
      'A source behind a firewall',
      'Extra consumers, and what an intermediary sees',
      'Replacing the authority of a site',
      'Files that were refused',
      'What `lost` means',
      'What `isobar status` counts',
      'Disk',
      'Backup and restore',
      'Certificates of a guest channel',
      'An external broker',
      'Reading with any MQTT client',
      'Upgrading',
      'A VM is silent or stuck',
      'A neighbour is silent',
      'Clocks that are wrong',
      'Uninstalling',
    ]);
  });

  test("`npm run check` is .ci/run: format, lint, types, dead code, architecture, then the README's test command", () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    expect(scripts['check']).toBe('.ci/run');
    const steps = Array.from(read('.ci/run').matchAll(/^step \d+ '(.+?)' (.+)$/gm), (step) =>
      step.slice(1),
    );
    expect(steps.map(([name]) => name)).toEqual([
      'set-up',
      'format and lint',
      'types',
      'dead code',
      'architecture',
      'tests',
    ]);
    expect(steps.at(-1)).toEqual(['tests', 'npm test']);
    expect(read('README.md')).toMatch(/^npm test /m);
    expect(read('.ci/run')).toMatch(
      /^style\(\) \{ "\$bin\/oxfmt" --check \. && "\$bin\/oxlint"; \}$/m,
    );
    expect(read('.ci/run')).toMatch(/^set -euo pipefail$/m);
  });

  test('the budgets of .ci/run add up to less than 40 minutes', () => {
    const minutes = Array.from(read('.ci/run').matchAll(/^step (\d+) /gm), ([, budget]) =>
      Number(budget),
    );
    expect(minutes.length).toBeGreaterThan(5);
    expect(minutes.reduce((sum, each) => sum + each, 0)).toBeLessThan(40);
    const kinds = Array.from(
      read('scripts/test.mjs').matchAll(/^ {2}\['[a-z0-9]+', (\d+)\],$/gm),
      ([, budget]) => Number(budget),
    );
    expect(kinds).toHaveLength(4);
    expect(kinds.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(minutes.at(-1) ?? 0);
  });

  test('every promise names a test that is there, by its exact title', () => {
    const tables = documents.filter((path) => path.startsWith('docs/promises/'));
    const rows = tables.flatMap((table) => promisesIn(table));
    expect(rows.length).toBeGreaterThanOrEqual(promisesMin);
    const titles = new Map(
      [...new Set(rows.map(({ file }) => file))].map((file) => [file, titlesIn(file)]),
    );
    expect(rows.filter(({ file, title }) => titles.get(file)?.has(title) !== true)).toEqual([]);
    // Each says so in a table, or is in a list of what no test holds.
    expect(tables.filter((table) => promisesIn(table).length === 0)).toEqual([]);
  });

  test('the changelog has a place for what is not released, and says what the version of the package is', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    const titles = Array.from(
      read('CHANGELOG.md').matchAll(/^## \[(.+?)\]/gm),
      ([, title]) => title,
    );
    expect(titles.slice(0, 2)).toEqual(['Unreleased', version]);
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

/** Rows over all tables of promises; fewer means that they were not read. */
const promisesMin = 200;

interface PromiseRow {
  readonly table: string;
  readonly promise: string;
  readonly title: string;
  readonly file: string;
}

/** The rows of a table | promise | test | file |, without its head. */
function promisesIn(table: string): PromiseRow[] {
  return Array.from(read(table).matchAll(/^\|(.+)\|$/gm), ([, line = '']) =>
    line.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll(String.raw`\|`, '|')),
  )
    .filter(([promise = '']) => promise !== 'promise' && !/^:?-+:?$/.test(promise))
    .map(([promise = '', title = '', file = '']) => ({
      table,
      promise,
      title: withoutCodeSpan(title),
      file: withoutCodeSpan(file),
    }));
}

/** CommonMark 6.1: one blank at each end is no content. */
function withoutCodeSpan(cell: string): string {
  const [, , content = cell] = /^(`+)(.+)\1$/.exec(cell) ?? [];
  return content.replace(/^ (.+) $/, '$1');
}

/**
 * Titles of the tests in a file, as they stand in the code: what follows `test(`, `it(` and helpers that make one, the
 * brackets of `each`, or begins a row of a table of titles.
 */
function titlesIn(file: string): ReadonlySet<string> {
  if (!existsSync(join(packageRoot(), file))) return new Set();
  const literal = /'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\\n]|\\.)*)`/.source;
  const before = /(?:\b(?:test|it|programTest)(?:\.\w+)*\(|\)\(|\bonly\('[\w-]+',|\[)\s*/.source;
  return new Set(
    Array.from(
      read(file).matchAll(new RegExp(`${before}(?:${literal})`, 'g')),
      ([, single, double, template]) =>
        (single ?? double ?? template ?? '').replaceAll(/\\(['"`\\])/g, '$1'),
    ),
  );
}

/** Words that follow the name in prose. */
const proseAfter = new Set(['command', 'is', 'runs']);

interface JsonSchema {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}

/** The second column of a section's table by the key in its first. */
function meaningsIn(section: string): ReadonlyMap<string, string> {
  return new Map(
    Array.from(section.matchAll(/^\| `([^`]+)` *\| ([^|]*)\|/gm), ([, key = '', meaning = '']) => [
      key,
      meaning.trim(),
    ]),
  );
}

interface DocumentKey {
  /** Dotted; `[]` is an item of a list. */
  readonly key: string;
  readonly description: string | undefined;
}

/** All keys, those of alternatives as often as they occur. */
function keysOf(schema: JsonSchema, path: string): DocumentKey[] {
  const own = Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    const key = path === '' ? name : `${path}.${name}`;
    return [{ key, description: child.description }, ...keysOf(child, key)];
  });
  const alternatives = [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])];
  return [
    ...own,
    ...alternatives.flatMap((each) => keysOf(each, path)),
    ...(schema.items === undefined ? [] : keysOf(schema.items, `${path}[]`)),
  ];
}

/** The command tree is only looked at: nothing is printed, nothing runs. */
function commandContext(): CommandContext {
  return {
    clock: new SystemClock(),
    random: new SystemRandom(),
    environment: {},
    userId: 1_000,
    output: {
      style: createStyle(false),
      errorStyle: createStyle(false),
      columns: undefined,
      line: () => Promise.resolve(),
      bytes: () => Promise.resolve(),
      remark: () => {},
    },
    interruptible: () => ({ signal: new AbortController().signal, release: () => {} }),
    readStandardInput: () => Promise.resolve(''),
    readStandardInputBytes: () => Promise.resolve(new Uint8Array()),
    setExitCode: () => {},
  };
}
