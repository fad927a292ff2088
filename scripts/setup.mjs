// Everything between a fresh clone and a program that runs: `npm start` and `npm test` call it first. Plain JavaScript
// without dependencies, because nothing is installed or compiled yet. A second run takes a second.
//
//   node scripts/setup.mjs [--for start|test]
//
// Exits 78 (EX_CONFIG) when this machine lacks something that a person has to provide, and says what.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const words = process.argv.slice(2).join(' ');
const purpose = words === '--for test' ? 'test' : 'start';
const stampPath = join(root, 'node_modules', '.isobar-setup');
const commandPath = join(root, 'dist', 'cli', 'main.js');
const exitCodeConfig = 78;
const exitCodeUsage = 2;

/** A reason to stop that a person can do something about. */
class SetupError extends Error {}

if (!['', '--for start', '--for test'].includes(words)) {
  process.stderr.write('usage: node scripts/setup.mjs [--for start|test]\n');
  process.exit(exitCodeUsage);
}

try {
  checkPlatform();
  const key = dependencyKey();
  const isCurrent = existsSync(stampPath) && readFileSync(stampPath, 'utf8') === key;
  if (!isCurrent) installDependencies();
  // Asked only now, so that one list names all that is missing: only npm knows whether SQLite has to be compiled.
  const isSqliteMissing = !isCurrent && !sqliteLoads() && !fetchSqlite();
  providePackages([...systemPackages(), ...(isSqliteMissing ? compilerPackages() : [])]);
  if (isSqliteMissing) compileSqlite();
  if (!isCurrent) {
    linkCommand();
    writeFileSync(stampPath, key);
  }
  build();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`isobar: ${error.message}\n`);
  process.exitCode = exitCodeConfig;
}

function checkPlatform() {
  if (process.platform !== 'linux') {
    throw new SetupError(
      `needs Linux, as it is a FUSE file system; this is ${process.platform}. A Linux VM or container will do`,
    );
  }
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(`needs Node 20.19 or newer; this is ${process.versions.node}`);
  }
  const obstacle = fuseObstacle();
  if (obstacle === undefined) return;
  if (purpose === 'start') throw new SetupError(obstacle);
  process.stderr.write(`isobar: ${obstacle}\n  going on without: tests that mount are skipped\n`);
}

function fuseObstacle() {
  if (!existsSync('/dev/fuse')) {
    return '/dev/fuse is missing. On a machine of its own, as root: modprobe fuse. In a container: start it with --device /dev/fuse --cap-add SYS_ADMIN';
  }
  if (!isAccessible('/dev/fuse', constants.R_OK | constants.W_OK)) {
    return '/dev/fuse is closed to this user. As root: chmod 666 /dev/fuse';
  }
  return undefined;
}

/** System packages that are missing, why each is needed, and whether we can go on without. */
function systemPackages() {
  const packages = [];
  const isTest = purpose === 'test';
  // Root mounts by itself; the tests also mount as other users.
  const isRoot = process.getuid() === 0;
  if (isRoot && findProgram('mount') === undefined) {
    packages.push({ name: 'mount', why: 'mounts', isOptional: isTest });
  }
  if ((isTest || !isRoot) && findProgram('fusermount3') === undefined) {
    packages.push({ name: 'fuse3', why: 'mounts as a user', isOptional: isTest });
  }
  if (!isTest) return packages;
  if (!run('ldconfig', ['-p'], { quiet: true }).stdout.includes('libfuse.so.2')) {
    packages.push({ name: 'libfuse2', why: 'for the fuse-native backend', isOptional: true });
  }
  if (findProgram('cc') === undefined) {
    const why = 'compiles system calls that no program makes';
    packages.push({ name: 'gcc', why, isOptional: true });
    packages.push({ name: 'libc6-dev', why: 'for gcc', isOptional: true });
  }
  return packages;
}

function compilerPackages() {
  const why = 'compiles SQLite, of which no prebuilt binary can be had here';
  return ['g++', 'make', 'python3']
    .filter((name) => findProgram(name) === undefined)
    .map((name) => ({ name, why, isOptional: false }));
}

/** Installs what is missing where that is possible and allowed; else says which command does. */
function providePackages(packages) {
  if (packages.length === 0) return;
  const names = packages.map(({ name }) => name);
  const list = packages.map(({ name, why }) => `${name} (${why})`).join(', ');
  const command = `apt-get install -y --no-install-recommends ${names.join(' ')}`;
  const obstacle = installObstacle();
  if (obstacle !== undefined) {
    const advice = `missing system packages: ${list}. ${obstacle}; install them as root with: ${hasPackageLists() ? command : `apt-get update && ${command}`}`;
    if (packages.every(({ isOptional }) => isOptional)) {
      process.stderr.write(
        `isobar: ${advice}\n  going on without: tests that need them are skipped\n`,
      );
      return;
    }
    throw new SetupError(advice);
  }
  process.stderr.write(`isobar: installing missing system packages: ${list}\n`);
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = () =>
    run('apt-get', command.split(' ').slice(1), { quiet: true, env: environment });
  // The lists of a fresh machine are empty or old; only then are they worth fetching.
  let result = install();
  if (result.status !== 0) {
    run('apt-get', ['update'], { quiet: true, env: environment });
    result = install();
  }
  if (result.status === 0) return;
  const failure = `${command} failed:\n${lastLines(result.stderr)}`;
  if (!packages.every(({ isOptional }) => isOptional)) throw new SetupError(failure);
  process.stderr.write(`isobar: ${failure}\n`);
}

/** Container images come without the lists of packages, and apt-get install finds nothing then. */
function hasPackageLists() {
  const directory = '/var/lib/apt/lists';
  return existsSync(directory) && readdirSync(directory).some((name) => name.includes('_Packages'));
}

function installObstacle() {
  if (process.env.ISOBAR_NO_INSTALL === '1') return 'ISOBAR_NO_INSTALL=1 forbids installing';
  if (findProgram('apt-get') === undefined) return 'There is no apt here';
  if (process.getuid() !== 0) return 'Installing needs root';
  return undefined;
}

/** What node_modules must be made for again when it changes. */
function dependencyKey() {
  return createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(`${process.version} ${process.arch}`)
    .digest('hex');
}

/** npm ci without install scripts: none but SQLite's is needed. The compiler is one of the dev dependencies. */
function installDependencies() {
  const modules = join(root, 'node_modules');
  if (lstatSync(modules, { throwIfNoEntry: false })?.isSymbolicLink() === true) {
    throw new SetupError(
      `node_modules is a link, and npm ci would empty ${realpathSync(modules)}, which others may use; remove the link first`,
    );
  }
  process.stderr.write('isobar: installing dependencies\n');
  const args = ['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund'];
  const installed = run('npm', args, {});
  if (installed.status !== 0) throw new SetupError('npm ci failed; its output is above');
}

/** The prebuilt binary that its makers publish, where it can be had. */
function fetchSqlite() {
  const program = join(root, 'node_modules', 'prebuild-install', 'bin.js');
  const cwd = join(root, 'node_modules', 'better-sqlite3');
  return run(process.execPath, [program], { cwd, quiet: true }).status === 0 && sqliteLoads();
}

function compileSqlite() {
  process.stderr.write('isobar: compiling SQLite; this takes some minutes, once\n');
  // Node's own headers, where the installation has them, save fetching them.
  const prefix = dirname(dirname(process.execPath));
  const hasHeaders = existsSync(join(prefix, 'include', 'node', 'node_api.h'));
  const compiled = run('npm', ['rebuild', 'better-sqlite3', '--ignore-scripts=false'], {
    quiet: true,
    env: { ...process.env, ...(hasHeaders ? { npm_config_nodedir: prefix } : {}) },
  });
  if (!sqliteLoads()) {
    throw new SetupError(`SQLite could not be compiled:\n${lastLines(compiled.stderr)}`);
  }
}

function sqliteLoads() {
  const script = "new (require('better-sqlite3'))(':memory:').close()";
  return run(process.execPath, ['-e', script], { quiet: true }).status === 0;
}

/** `npx isobar` finds what lies here. */
function linkCommand() {
  const link = join(root, 'node_modules', '.bin', 'isobar');
  mkdirSync(dirname(link), { recursive: true });
  rmSync(link, { force: true });
  symlinkSync(join('..', '..', 'dist', 'cli', 'main.js'), link);
}

/** Incremental: only what changed is compiled. The compiler's notes lie in dist/ and don't notice files that are gone. */
function build() {
  if (!existsSync(commandPath)) rmSync(join(root, 'dist'), { recursive: true, force: true });
  const compiler = join(root, 'node_modules', '.bin', 'tsc');
  const built = run(compiler, ['-p', 'tsconfig.build.json'], {});
  if (built.status !== 0) throw new SetupError('the build failed; its output is above');
  chmodSync(commandPath, 0o755);
}

/** With `quiet` the output is kept for whoever asks; else it goes to the terminal. */
function run(program, args, { quiet = false, cwd = root, env = process.env }) {
  const result = spawnSync(program, args, {
    cwd,
    env,
    encoding: 'utf8',
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 2, 2],
    maxBuffer: 64 * 1024 * 1024,
  });
  return { status: result.status, stdout: result.stdout ?? '', stderr: result.stderr ?? '' };
}

function findProgram(name) {
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return directories
    .map((directory) => join(directory, name))
    .find((path) => isAccessible(path, constants.X_OK));
}

function isAccessible(path, mode) {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

function lastLines(text) {
  return text.trimEnd().split('\n').slice(-15).join('\n');
}
