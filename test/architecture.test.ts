import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

import { describe, expect, test } from 'vitest';

import { packageRoot } from '../common/runtime/package-root.ts';
import { sourceFiles } from './support/source-files.ts';

/** Which of our folders each may import from. `import type` counts: it couples as much. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  common: [],
  broker: ['common'],
  'guest-agent': ['common', 'broker'],
  'host-collector': ['common', 'broker'],
  'primary-site': ['common', 'broker'],
  cli: ['common', 'broker', 'guest-agent', 'host-collector', 'primary-site'],
};

/** Who owns each outside package: its only importers, as prefixes of paths. zod is everyone's language for edges. */
const owners: Readonly<Record<string, readonly string[]>> = {
  '@hono/node-server': ['common/control/'],
  '@peculiar/asn1-cms': ['common/sealing/'],
  '@peculiar/asn1-schema': ['common/identity/certificate-maker.ts', 'common/sealing/'],
  '@peculiar/asn1-x509': ['common/identity/certificate-maker.ts', 'common/sealing/'],
  '@peculiar/x509': ['common/identity/certificate-maker.ts'],
  aedes: ['broker/mqtt/'],
  'better-sqlite3': ['common/sqlite/'],
  'cbor-x': ['common/'],
  commander: ['cli/'],
  'fuse-native': ['guest-agent/fuse/fuse-native/'],
  hono: [
    'common/control/',
    'broker/relay/',
    'guest-agent/',
    'host-collector/',
    'primary-site/',
    'cli/up/',
  ],
  mqtt: ['broker/mqtt/'],
  'mqtt-packet': ['broker/mqtt/'],
  pino: ['common/runtime/log.ts'],
  'reflect-metadata': ['common/identity/certificate-maker.ts'],
  zod: [''],
};

const linesMax = 500;
/** A guard against a test that passes because it looked at nothing. */
const edgesMin = 50;

interface Edge {
  readonly from: string;
  readonly to: string;
}

const files = sourceFiles();
const sources = files.filter((path) => path.endsWith('.ts') && folderOf(path) in mayImport);
const edges = sources.flatMap((path) => importsOf(path));

function folderOf(path: string): string {
  return path.split('/')[0] ?? '';
}

function read(path: string): string {
  return readFileSync(join(packageRoot(), path), 'utf8');
}

/** What Node loads before the first line of `path` runs: neither types nor what `import()` asks for later. */
function loadedWith(path: string): string[] {
  const found = new Set([path]);
  for (const file of found) {
    if (!file.endsWith('.ts')) continue;
    const specifiers = read(file).matchAll(
      /^(?:import|export)\b[^;]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'/gm,
    );
    for (const [statement, from, bare] of specifiers) {
      if (/^(?:import|export)\s+type\b/.test(statement)) continue;
      const specifier = from ?? bare ?? '';
      found.add(specifier.startsWith('.') ? normalize(join(dirname(file), specifier)) : specifier);
    }
  }
  return [...found];
}

function importsOf(path: string): Edge[] {
  const specifiers = read(path).matchAll(
    /^(?:import|export)\b[^;]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'/gm,
  );
  return Array.from(specifiers, ([, from, bare, dynamic]) => {
    const specifier = from ?? bare ?? dynamic ?? '';
    const isOurs = specifier.startsWith('.');
    return { from: path, to: isOurs ? normalize(join(dirname(path), specifier)) : specifier };
  });
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

const ours = edges.filter(({ to }) => to.endsWith('.ts'));
const outside = edges.filter(({ to }) => !to.endsWith('.ts') && !to.startsWith('node:'));

describe('the architecture', () => {
  test('was looked at: files and imports were found', () => {
    expect(
      Object.keys(mayImport).filter((folder) => !sources.some((path) => folderOf(path) === folder)),
    ).toEqual(Object.keys(mayImport).filter((folder) => !existsSync(join(packageRoot(), folder))));
    expect(ours.length).toBeGreaterThan(edgesMin);
    expect(ours.filter(({ to }) => !files.includes(to))).toEqual([]);
  });

  test('imports point one way: common <- broker <- processes <- cli', () => {
    const wrong = ours.filter(({ from, to }) => {
      const [importer, imported] = [folderOf(from), folderOf(to)];
      return importer !== imported && !(mayImport[importer] ?? []).includes(imported);
    });
    expect(wrong).toEqual([]);
  });

  test('every outside package has one owner', () => {
    const wrong = outside.filter(
      ({ from, to }) => !(owners[packageOf(to)] ?? []).some((owner) => from.startsWith(owner)),
    );
    expect(wrong).toEqual([]);
  });

  test('a relay loads no library for making certificates before it makes one', () => {
    const loaded = loadedWith('broker/relay/run-relay.ts');
    expect(loaded).toContain('common/identity/certificates.ts');
    expect(loaded).toContain('zod');
    expect(loaded.filter((to) => /^@peculiar\/|^reflect-metadata$|^node-forge$/.test(to))).toEqual(
      [],
    );
  });

  test('no product file imports from test, bench or scripts', () => {
    const outsiders = ['test', 'bench', 'scripts'];
    expect(ours.filter(({ to }) => outsiders.includes(folderOf(to)))).toEqual([]);
  });

  test('no product file has directories made by Node with `recursive`, which tries for ever below /proc', () => {
    const product = sources.filter((path) => folderOf(path) in mayImport);
    expect(product.length).toBeGreaterThan(50);
    expect(
      product.filter((path) => /mkdir(?:Sync)?\([^;]*recursive: true/.test(read(path))),
    ).toEqual([]);
  });

  test(`no file is longer than ${linesMax} lines`, () => {
    const long = files
      .filter((path) => /\.(?:ts|mjs)$/.test(path))
      .map((path) => ({ path, lines: read(path).split('\n').length }))
      .filter(({ lines }) => lines > linesMax);
    expect(long).toEqual([]);
  });

  test('no file names a private place: a package registry, an absolute home or work directory', () => {
    // Put together here, so that this file does not hold them.
    const words = [
      ...['work', 'root'].map((directory) => `/${directory}/`),
      ['registry', 'npmjs'].join('.'),
      // npm's lock file names hosts under this key only.
      JSON.stringify('resolved'),
    ];
    const texts = files.filter((path) => /\.(?:ts|mjs|json|md|sh|c|py)$|^[^.]+$/.test(path));
    expect(texts.length).toBeGreaterThan(50);
    const found = texts.flatMap((path) => {
      const text = read(path);
      return words.filter((word) => text.includes(word)).map((word) => `${path}: ${word}`);
    });
    expect(found).toEqual([]);
  });

  test('every folder with a process explains itself in a DESIGN.md', () => {
    const processes = files.filter((path) => /^[^/]+\/main\.ts$/.test(path)).map(folderOf);
    const folders = [...new Set([...processes, 'broker'])];
    expect(folders).toContain('cli');
    expect(folders.filter((folder) => !files.includes(`${folder}/DESIGN.md`))).toEqual([]);
  });
});
