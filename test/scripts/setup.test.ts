import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { packageRoot } from '../../common/runtime/package-root.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

type FuseState = 'there' | 'missing' | 'closed';

interface Machine {
  readonly fuse?: FuseState;
  /** Run before set-up, in its process: what this machine shall be. */
  readonly preload?: string;
  readonly environment?: NodeJS.ProcessEnv;
  readonly purpose?: 'start' | 'test';
  /** Programs that are there beside node, npm, apt-get and ldconfig. */
  readonly programs?: readonly string[];
  /** Whether dependencies lie there already, so that only system packages are looked at. */
  readonly hasDependencies?: boolean;
  /** What npm does beside noting its call. */
  readonly npm?: string;
}

interface SetUp {
  readonly exitCode: number | null;
  readonly stderr: string;
  /** How apt-get was called, a line each. */
  readonly installed: string;
  readonly isBuilt: boolean;
  /** Where `npx isobar` leads. */
  readonly command: string | undefined;
}

const asRoot = 'process.getuid = () => 0;';
const asUser = 'process.getuid = () => 1000;';

/** What the script finds of /dev/fuse, whatever this machine has. */
function fuseIs(state: FuseState): string {
  return `
    import fs from 'node:fs';
    import { syncBuiltinESMExports } from 'node:module';
    const { existsSync, accessSync } = fs;
    fs.existsSync = (path) => path === '/dev/fuse' ? ${state !== 'missing'} : existsSync(path);
    fs.accessSync = (path, mode) => {
      if (path !== '/dev/fuse') return accessSync(path, mode);
      if (${state !== 'there'}) throw new Error('EACCES');
    };
    syncBuiltinESMExports();`;
}

/** Runs scripts/setup.mjs in a clone of its own, on a machine with nothing but node and programs that note their calls. */
function setUp(machine: Machine): SetUp {
  using directory = temporaryDirectory();
  const inClone = (...names: readonly string[]): string => join(directory.path, ...names);
  const script = inClone('scripts', 'setup.mjs');
  for (const name of ['scripts', 'programs', 'node_modules', 'node_modules/.bin']) {
    mkdirSync(inClone(name));
  }
  copyFileSync(join(packageRoot(), 'scripts', 'setup.mjs'), script);
  writeFileSync(inClone('package-lock.json'), '{}');
  if (machine.hasDependencies !== false) {
    const key = createHash('sha256').update('{}').update(`${process.version} ${process.arch}`);
    writeFileSync(inClone('node_modules', '.isobar-setup'), key.digest('hex'));
  }
  symlinkSync(process.execPath, inClone('programs', 'node'));
  const calls = inClone('calls');
  for (const [path, body] of [
    ['programs/apt-get', `echo "$*" >> ${calls}`],
    ['programs/npm', `echo "npm $*" >> ${calls}; ${machine.npm ?? 'exit 1'}`],
    ['programs/ldconfig', ''],
    ...(machine.programs ?? []).map((name) => [`programs/${name}`, ''] as const),
    [
      'node_modules/.bin/tsc',
      `/bin/mkdir -p ${inClone('dist/cli')}; : > ${inClone('dist/cli/main.js')}`,
    ],
  ] as const) {
    writeFileSync(inClone(path), `#!/bin/sh\n${body}\n`);
    chmodSync(inClone(path), 0o755);
  }
  const preload = `${fuseIs(machine.fuse ?? 'there')}\n${asRoot}\n${machine.preload ?? ''}`;
  writeFileSync(inClone('preload.mjs'), preload);
  const { ISOBAR_NO_INSTALL: _forbidden, ...environment } = process.env;
  const { status, stderr } = spawnSync(
    process.execPath,
    ['--import', inClone('preload.mjs'), script, '--for', machine.purpose ?? 'start'],
    {
      encoding: 'utf8',
      env: { ...environment, PATH: inClone('programs'), ...machine.environment },
    },
  );
  return {
    exitCode: status,
    stderr,
    installed: existsSync(calls) ? readFileSync(calls, 'utf8') : '',
    isBuilt: existsSync(inClone('dist', 'cli', 'main.js')),
    command: linkIn(inClone('node_modules', '.bin', 'isobar')),
  };
}

function linkIn(path: string): string | undefined {
  return lstatSync(path, { throwIfNoEntry: false }) === undefined ? undefined : readlinkSync(path);
}

/** A better-sqlite3 that loads; npm puts it where `npm ci` or `npm rebuild` would. */
const sqliteThatLoads = `/bin/mkdir -p node_modules/better-sqlite3
echo 'module.exports = class { close() {} };' > node_modules/better-sqlite3/index.js`;

describe('set-up of a fresh clone', () => {
  test('"system packages: only what is missing, listed before it is installed, by apt as root"', () => {
    const start = setUp({});
    expect(start).toMatchObject({ exitCode: 0, isBuilt: true });
    expect(start.stderr).toContain('installing missing system packages: mount (mounts)\n');
    expect(start.installed).toBe('install -y --no-install-recommends mount\n');

    const tests = setUp({ purpose: 'test' });
    expect(tests).toMatchObject({ exitCode: 0, isBuilt: true });
    for (const name of ['mount', 'fuse3', 'libfuse2', 'gcc']) {
      expect(tests.stderr).toMatch(new RegExp(`installing .*\\b${name} \\(`));
      expect(tests.installed).toMatch(new RegExp(`^install .* ${name}\\b`));
    }
  });

  test('nothing is installed where nothing is missing', () => {
    const { exitCode, installed, stderr } = setUp({ programs: ['mount'] });
    expect({ exitCode, installed, stderr }).toEqual({ exitCode: 0, installed: '', stderr: '' });
  });

  test('"ISOBAR_NO_INSTALL=1 forbids installs": the exact command and exit 78; tests go on without what they can skip', () => {
    const environment = { ISOBAR_NO_INSTALL: '1' };
    const start = setUp({ environment });
    expect(start).toMatchObject({ exitCode: 78, installed: '', isBuilt: false });
    expect(start.stderr).toMatch(
      /install them as root with: (apt-get update && )?apt-get install -y --no-install-recommends mount\n/,
    );
    const tests = setUp({ environment, purpose: 'test' });
    expect(tests).toMatchObject({ exitCode: 0, installed: '', isBuilt: true });
    expect(tests.stderr).toContain('tests that need them are skipped');
  });

  test('"as non-root: else the exact command to run and exit 78"', () => {
    const start = setUp({ preload: asUser });
    expect(start).toMatchObject({ exitCode: 78, installed: '', isBuilt: false });
    expect(start.stderr).toMatch(
      /fuse3 \(mounts as a user\)\. Installing needs root; install them as root with: (apt-get update && )?apt-get install -y --no-install-recommends fuse3\n/,
    );
  });

  test.each([
    ['missing', 'modprobe fuse', '--device /dev/fuse'],
    ['closed', 'As root: chmod 666 /dev/fuse', ''],
  ] as const)(
    '"where FUSE is missing the error says what to do; tests that need it are skipped": %s',
    (fuse, ...advice) => {
      const start = setUp({ fuse });
      expect(start).toMatchObject({ exitCode: 78, isBuilt: false });
      for (const part of advice) expect(start.stderr).toContain(part);
      const tests = setUp({ fuse, purpose: 'test' });
      expect(tests).toMatchObject({ exitCode: 0, isBuilt: true });
      expect(tests.stderr).toContain('going on without: tests that mount are skipped');
    },
  );

  test.each([
    [
      '"Linux only; elsewhere a clear message"',
      "Object.defineProperty(process, 'platform', { value: 'darwin' });",
      'needs Linux',
    ],
    [
      'a Node that is too old',
      "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.18.3' } });",
      'needs Node 20.19 or newer; this is 20.18.3',
    ],
  ])('%s: exit 78, and nothing was touched', (_what, preload, message) => {
    const { exitCode, stderr, installed, isBuilt } = setUp({ preload });
    expect({ exitCode, installed, isBuilt }).toEqual({
      exitCode: 78,
      installed: '',
      isBuilt: false,
    });
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/\n {4}at /);
  });

  test('"dependencies, build": npm ci, then what is missing, then the command that `npx isobar` runs', () => {
    const { exitCode, installed, isBuilt, command } = setUp({
      hasDependencies: false,
      npm: sqliteThatLoads,
      programs: ['mount'],
    });
    expect({ exitCode, isBuilt }).toEqual({ exitCode: 0, isBuilt: true });
    expect(installed).toMatch(/^npm ci --ignore-scripts .*\n$/);
    expect(command).toBe('../../dist/cli/main.js');
  });

  test('"a compiler for SQLite where no prebuilt binary can be had"', () => {
    const { exitCode, installed, stderr } = setUp({
      hasDependencies: false,
      npm: `/bin/mkdir -p node_modules/better-sqlite3; case $1 in rebuild) ${sqliteThatLoads};; esac`,
      programs: ['mount'],
    });
    expect(exitCode).toBe(0);
    expect(stderr).toContain('g++ (compiles SQLite, of which no prebuilt binary can be had here)');
    const [first, second, third] = installed.split('\n');
    expect(first).toContain('npm ci');
    expect(second).toBe('install -y --no-install-recommends g++ make python3');
    expect(third).toContain('npm rebuild better-sqlite3');
  });

  test('dependencies come by npm ci without install scripts; where that fails, set-up ends with 78', () => {
    const { exitCode, installed, isBuilt, stderr } = setUp({ hasDependencies: false });
    expect({ exitCode, isBuilt }).toEqual({ exitCode: 78, isBuilt: false });
    expect(installed).toMatch(/^npm ci --ignore-scripts .*\n$/);
    expect(stderr).toContain('npm ci failed');
  });
});
