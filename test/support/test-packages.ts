import {
  accessSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  statSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, isAbsolute, join, relative } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';
import { mustRun } from './programs/run-program.ts';

/**
 * Programs that tests drive, and the Debian packages (with the libraries that a bare system lacks) that have each. What
 * the machine lacks is unpacked below `.cache/test-packages/`, or below the temporary directory where other users can't
 * reach this clone; nothing is installed, no maintainer script runs, and no service starts.
 */
const packagesOf = {
  busybox: ['busybox-static'],
  collectd: ['collectd-core', 'libcap2'],
  cpio: ['cpio'],
  curl: ['curl', 'libcurl4'],
  ed: ['ed'],
  fish: ['fish', 'fish-common', 'libpcre2-32-0'],
  git: ['git'],
  javac: ['openjdk-17-jdk-headless', 'openjdk-17-jre-headless'],
  jq: ['jq', 'libjq1', 'libonig5'],
  logger: ['bsdutils'],
  logrotate: ['logrotate', 'libpopt0'],
  nano: ['nano'],
  postgres: ['postgresql-15', 'postgresql-client-15', 'libpq5', 'libllvm14', 'libxml2', 'libicu72'],
  python3: ['python3.11-minimal', 'libpython3.11-minimal'],
  rsync: ['rsync', 'libpopt0', 'libxxhash0'],
  rsyslogd: ['rsyslog', 'libestr0', 'libfastjson4', 'liblognorm5'],
  setfattr: ['attr'],
  sponge: ['moreutils'],
  sqlite3: ['sqlite3', 'libreadline8'],
  unzip: ['unzip'],
  vim: ['vim', 'vim-runtime', 'vim-common', 'libsodium23', 'libgpm2'],
  wget: ['wget', 'libpcre2-8-0', 'libpsl5'],
  zip: ['zip'],
  zsh: ['zsh', 'zsh-common', 'libcap2'],
} as const satisfies Readonly<Record<string, readonly string[]>>;

/** Needs no package: present on every Debian, or refused with a reason when it isn't there. */
const essentialPrograms = [
  'awk',
  'bash',
  'cc',
  'dash',
  'perl',
  'script',
  'setpriv',
  'tar',
] as const;

export type TestProgram = keyof typeof packagesOf | (typeof essentialPrograms)[number];

/** Where a program is and what it needs in its environment. */
export interface FoundProgram {
  readonly path: string;
  /** PATH and, for a private copy, LD_LIBRARY_PATH. */
  readonly environment: Readonly<Record<string, string>>;
  /** Directory that the private copy was unpacked to; undefined for the machine's own. */
  readonly root: string | undefined;
}

const binaryDirectories = [
  'usr/local/bin',
  'usr/bin',
  'bin',
  'usr/sbin',
  'sbin',
  'usr/lib/postgresql/15/bin',
  'usr/lib/jvm/java-17-openjdk-amd64/bin',
];

/** The program of the machine or, failing that, a private copy; a text that says why it can't be had otherwise. */
export async function findProgram(program: TestProgram): Promise<FoundProgram | string> {
  const installed = find(program, '/');
  if (installed !== undefined) {
    return { path: installed, environment: { PATH: searchPath('/') }, root: undefined };
  }
  const packages = Object.entries(packagesOf).find(([name]) => name === program)?.[1];
  if (packages === undefined) return `${program} is not installed`;
  const root = join(packagesDirectory(), program);
  try {
    if (!existsSync(root)) await unpack(packages, root);
  } catch (error) {
    return `${program} is not installed and ${packages.join(' ')} can't be downloaded: ${firstLine(error)}`;
  }
  const path = find(program, root);
  if (path === undefined) return `${packages.join(' ')} have no ${program} for this machine`;
  return { path, environment: environmentOf(root), root };
}

/** Some programs refuse to run as root, so another user must reach what was unpacked. */
function packagesDirectory(): string {
  const own = join(packageRoot(), '.cache', 'test-packages');
  return isReachableByAll(packageRoot())
    ? own
    : join(tmpdir(), `isobar-test-packages-${process.getuid?.()}`);
}

function isReachableByAll(directory: string): boolean {
  const othersEnter = 0o001;
  if ((statSync(directory).mode & othersEnter) === 0) return false;
  const parent = dirname(directory);
  return parent === directory || isReachableByAll(parent);
}

/**
 * Makes links to absolute paths that `root` itself has (a JDK's configuration in /etc) lead there rather than into the
 * machine's own directories, wherever `root` is moved afterwards.
 */
export function relinkInside(root: string): void {
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isSymbolicLink()) continue;
    const link = join(entry.parentPath, entry.name);
    const target = readlinkSync(link);
    if (!isAbsolute(target) || !isThere(join(root, target))) continue;
    unlinkSync(link);
    symlinkSync(relative(entry.parentPath, join(root, target)), link);
  }
}

/** A link counts, whether it leads anywhere or not. */
function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

const downloadTimeoutMs = 120_000;

/** Downloads and unpacks into a directory beside `root` first, so that `root` is whole or absent. */
async function unpack(packages: readonly string[], root: string): Promise<void> {
  const parent = join(root, '..');
  mkdirSync(parent, { recursive: true });
  const staging = mkdtempSync(join(parent, 'unpacking-'));
  try {
    await mustRun('apt-get', ['download', '-q', ...packages], {
      workingDirectory: staging,
      timeoutMs: downloadTimeoutMs,
    });
    const archives = readdirSync(staging).filter((name) => name.endsWith('.deb'));
    for (const archive of archives) {
      await mustRun('dpkg', ['-x', archive, join(staging, 'root')], { workingDirectory: staging });
    }
    relinkInside(join(staging, 'root'));
    await rename(join(staging, 'root'), root);
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

function find(program: string, root: string): string | undefined {
  const fromPath = root === '/' ? (process.env['PATH'] ?? '').split(delimiter) : [];
  const directories = [...fromPath, ...binaryDirectories.map((directory) => join(root, directory))];
  return directories.map((directory) => join(directory, program)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function searchPath(root: string): string {
  const own = binaryDirectories
    .map((directory) => join(root, directory))
    .filter((path) => existsSync(path));
  return [...own, process.env['PATH'] ?? ''].join(delimiter);
}

function environmentOf(root: string): Record<string, string> {
  const libraries = [
    'usr/lib/x86_64-linux-gnu',
    'lib/x86_64-linux-gnu',
    'usr/lib/aarch64-linux-gnu',
    'usr/lib',
  ]
    .map((directory) => join(root, directory))
    .filter((path) => existsSync(path));
  return { PATH: searchPath(root), LD_LIBRARY_PATH: libraries.join(delimiter) };
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split('\n').at(-1) ?? text;
}
