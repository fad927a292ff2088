// Makes the terminal session of the README from a real run: starts `isobar up` on a fresh data directory, saves files,
// watches them, and writes what was typed and printed between the session markers.
//
//   node scripts/record-session.mjs
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const command = join(root, 'dist', 'cli', 'main.js');
const dataDirectory = mkdtempSync(join(tmpdir(), 'isobar-session-'));
/** What readers have, as `isobar up` chooses for root. */
const shownDirectory = '/var/lib/isobar';
const environment = { ...process.env, ISOBAR_DATA_DIR: dataDirectory, npm_execpath: 'npm' };
const waitMaxMs = 30_000;

const up = start('up');
try {
  const upLines = await take(up, (line) => line.includes('isobar status'));
  const mount = join(dataDirectory, 'mount', 'unencrypted');
  const watch = start('watch', 'kpi/**');
  await watch.connected;
  const saves = [
    `echo 42 > ${mount}/users`,
    String.raw`printf 'cpu,mem\n0.5,1024\n' > ${mount}/load`,
  ];
  for (const script of saves) save(script);
  let seenCount = 0;
  const watchLines = await take(watch, () => {
    seenCount += 1;
    return seenCount === 3;
  });
  watch.child.kill('SIGINT');
  await once(watch.child, 'exit');
  const status = spawnSync(command, ['status'], { env: environment, encoding: 'utf8' }).stdout;
  publish([
    ['npm start', upLines],
    ...saves.map((script) => [script, []]),
    ["npx isobar watch 'kpi/**' --since 1m", watchLines],
    ['npx isobar status', status.trimEnd().split('\n')],
  ]);
} finally {
  up.child.kill('SIGINT');
  await once(up.child, 'exit');
  rmSync(dataDirectory, { recursive: true, force: true });
}

function save(script) {
  const result = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${script}: ${result.stderr}`);
}

function start(...words) {
  const extra = words[0] === 'watch' ? ['--since', '1m'] : [];
  const child = spawn(command, [...words, ...extra], {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, lines, connected: once(child, 'spawn') };
}

/** Lines up to the one that `isLast` accepts. */
async function take({ child, lines }, isLast) {
  const taken = [];
  const timer = setTimeout(() => child.kill('SIGTERM'), waitMaxMs);
  for (;;) {
    const { done, value } = await lines.next();
    if (done) throw new Error(`ended too early, after:\n${taken.join('\n')}`);
    taken.push(value);
    if (isLast(value)) break;
  }
  clearTimeout(timer);
  return taken;
}

function publish(steps) {
  const session = steps
    .flatMap(([typed, printed]) => [`$ ${typed}`, ...printed])
    .join('\n')
    .replaceAll(dataDirectory, shownDirectory);
  const path = join(root, 'README.md');
  const [before, rest] = readFileSync(path, 'utf8').split(/(?<=<!-- session:begin [^\n]*\n)/);
  const after = rest.slice(rest.indexOf('<!-- session:end -->'));
  writeFileSync(path, `${before}\n\`\`\`console\n${session}\n\`\`\`\n\n${after}`);
  process.stdout.write(`${session}\n`);
}
