// Adds to package-lock.json the optional packages of other platforms that npm left out, because the registry it asked
// has only those of this machine. Without them `npm ci` calls the lock file out of sync. Run it after `npm install`.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const path = join(dirname(dirname(fileURLToPath(import.meta.url))), 'package-lock.json');
const systems = [
  'aix',
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'sunos',
  'win32',
];
const processors = [
  'arm64',
  'arm',
  'ia32',
  'loong64',
  'mips64el',
  'ppc64',
  'riscv64',
  's390x',
  'wasm32',
  'x64',
];

const lock = JSON.parse(readFileSync(path, 'utf8'));
const added = {};
for (const [parent, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (isLocked(parent, name)) continue;
    added[`node_modules/${name}`] = placeholder(name, version, entry);
  }
}
const sorted = Object.entries({ ...lock.packages, ...added }).toSorted(([left], [right]) =>
  left.localeCompare(right, 'en'),
);
writeFileSync(
  path,
  `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, undefined, 2)}\n`,
);
process.stdout.write(`added ${Object.keys(added).length} packages of other platforms\n`);

/** Node's rule: the nearest node_modules upwards has it. */
function isLocked(parent, name) {
  const candidates = [`${parent}/node_modules/${name}`, `node_modules/${name}`];
  return candidates.some((candidate) => candidate in lock.packages);
}

/** The platform is in the name. An entry that names none would be installed here, so that is refused. */
function placeholder(name, version, parentEntry) {
  const words = name.split(/[/-]/);
  const os = systems.filter((system) => words.includes(system));
  const cpu = processors.filter((processor) => words.includes(processor)).slice(0, 1);
  if (os.length === 0 && cpu.length === 0) throw new Error(`${name}: which platform is it for?`);
  return {
    version,
    ...(cpu.length === 0 ? {} : { cpu }),
    ...(parentEntry.dev === true ? { dev: true } : {}),
    optional: true,
    ...(os.length === 0 ? {} : { os }),
    ...(words.includes('musl') ? { libc: ['musl'] } : {}),
  };
}
