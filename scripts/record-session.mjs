// Makes the terminal sessions of the README from real runs, and writes what was typed and printed between their markers:
// `session` starts `isobar up` on a fresh data directory, saves files and watches them, `demo` runs a federation.
//
//   node scripts/record-session.mjs [session] [demo]
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
/** With it each line of the demo's view begins. */
const eraseLine = '\u001B[2K';

const recordings = { session: recordStart, demo: recordDemo };
const chosen = process.argv.slice(2);
try {
  for (const [name, record] of Object.entries(recordings)) {
    if (chosen.length === 0 || chosen.includes(name)) await record();
  }
} finally {
  rmSync(dataDirectory, { recursive: true, force: true });
}

async function recordStart() {
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
    publish('session', [
      ['npm start', upLines],
      ...saves.map((script) => [script, []]),
      ["npx isobar watch 'kpi/**' --since 1m", watchLines],
      ['npx isobar status', status.trimEnd().split('\n')],
    ]);
  } finally {
    up.child.kill('SIGINT');
    await once(up.child, 'exit');
  }
}

/** What is on a terminal at the end: the view is drawn in place. */
async function recordDemo() {
  const typed = ['--kill', 'intermediary'];
  const inTerminal = `stty cols 100; '${process.execPath}' '${command}' demo ${typed.join(' ')}`;
  const child = spawn('script', ['-qec', inTerminal, '/dev/null'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  child.stdout.on('data', (chunk) => (printed += chunk));
  const [exitCode] = await once(child, 'exit');
  if (exitCode !== 0) throw new Error(printed);
  // oxlint-disable-next-line no-control-regex -- what moves the cursor up to the frame's begin
  const frames = printed.split(/\u001B\[\d+A/);
  const before = frames[0].slice(0, frames[0].indexOf(eraseLine));
  // oxlint-disable-next-line no-control-regex -- colours
  const lines = (before + frames.at(-1)).replaceAll(/\u001B\[[\d;]*[A-Za-z]|\r/g, '').trimEnd();
  publish('demo', [[`npm run demo -- ${typed.join(' ')}`, lines.split('\n')]]);
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

/** Between the markers NAME:begin and NAME:end. */
function publish(name, steps) {
  const session = steps
    .flatMap(([typed, printed]) => [`$ ${typed}`, ...printed])
    .join('\n')
    .replaceAll(dataDirectory, shownDirectory);
  const path = join(root, 'README.md');
  const [before, rest] = readFileSync(path, 'utf8').split(
    new RegExp(String.raw`(?<=<!-- ${name}:begin [^\n]*\n)`),
  );
  const after = rest.slice(rest.indexOf(`<!-- ${name}:end -->`));
  writeFileSync(path, `${before}\n\`\`\`console\n${session}\n\`\`\`\n\n${after}`);
  process.stdout.write(`${session}\n`);
}
