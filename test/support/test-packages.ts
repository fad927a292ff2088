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
  curl: [
    'curl',
    'libcurl4',
    'libbrotli1',
    'libldap-2.5-0',
    'libnghttp2-14',
    'libpsl5',
    'librtmp1',
    'libsasl2-2',
    'libssh2-1',
  ],
  ed: ['ed'],
  fish: ['fish', 'fish-common', 'libpcre2-32-0'],
  git: ['git'],
  javac: ['openjdk-17-jdk-headless', 'openjdk-17-jre-headless'],
  jq: ['jq', 'libjq1', 'libonig5'],
  logger: ['bsdutils'],
  logrotate: ['logrotate', 'libpopt0'],
  nano: ['nano'],
  postgres: [
    'postgresql-15',
    'postgresql-client-15',
    'libicu72',
    'libldap-2.5-0',
    'libllvm14',
    'libpq5',
    'libsasl2-2',
    'libxml2',
  ],
  python3: ['python3.11-minimal', 'libpython3.11-minimal'],
  'qemu-system-x86_64': [
    'qemu-system-x86',
    'qemu-system-common',
    'qemu-system-data',
    'seabios',
    'libaio1',
    'libbpf1',
    'libcapstone4',
    'libdaxctl1',
    'libelf1',
    'libfdt1',
    'libfuse3-3',
    'libglib2.0-0',
    'libibverbs1',
    'libjpeg62-turbo',
    'libkmod2',
    'libndctl6',
    'libnl-3-200',
    'libnl-route-3-200',
    'libnuma1',
    'libpixman-1-0',
    'libpmem1',
    'libpng16-16',
    'librdmacm1',
    'libsasl2-2',
    'libslirp0',
    'liburing2',
    'libvdeplug2',
  ],
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
  'mount',
  'perl',
  'script',
  'setpriv',
  'tar',
  'umount',
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
  const unpacked = await unpackedPackages(program, () => Promise.resolve(packages));
  if (!unpacked.ok) return `${program} is not installed and ${unpacked.reason}`;
  const root = unpacked.path;
  const path = find(program, root);
  if (path === undefined) return `${packages.join(' ')} have no ${program} for this machine`;
  return { path, environment: environmentOf(root), root };
}

/** The directory that packages were unpacked to, or why they can't be had. */
export type UnpackedPackages =
  | { readonly ok: true; readonly path: string }
  | { readonly ok: false; readonly reason: string };

/** Unpacks Debian packages privately, once; `packagesFor` is asked for their names only if they are not there yet. */
export async function unpackedPackages(
  name: string,
  packagesFor: () => Promise<readonly string[]>,
): Promise<UnpackedPackages> {
  const path = join(packagesDirectory(), name);
  if (existsSync(path)) return { ok: true, path };
  let packages: readonly string[] = [name];
  try {
    packages = await packagesFor();
    await unpack(packages, path);
    return { ok: true, path };
  } catch (error) {
    return { ok: false, reason: `${packages.join(' ')} can't be downloaded: ${firstLine(error)}` };
  }
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

/** Programs whose plain name is a link that installing makes (update-alternatives), below /usr/bin. */
const alternatives = { vim: 'vim.basic' } as const;

/** Makes the links that a maintainer script would have made. */
export function linkAlternatives(root: string): void {
  for (const [name, target] of Object.entries(alternatives)) {
    const link = join(root, 'usr/bin', name);
    if (existsSync(join(dirname(link), target)) && !isThere(link)) symlinkSync(target, link);
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
    linkAlternatives(join(staging, 'root'));
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
