import { fork } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { compiledEntry, packageRoot } from '../../common/runtime/package-root.ts';
import { saveFailure } from './run-target.ts';
import { findTarget, fuzzTargets } from './targets.ts';

const secondsDefault = 180;
/** A target that tells nothing for this long hangs; many times what a batch takes on a loaded machine. */
const silenceSecondsDefault = 60;
/** Of the process that is fuzzed: what takes more memory than it has ends it. */
const heapMebibytesMax = 1_024;

const usage = `usage: npm run fuzz -- [--only NAME]... [--seconds N] [--seed N] [--replay FILE]

Targets: ${fuzzTargets.map(({ name }) => name).join(', ')} (all of them by default).
  --only NAME    this target; may be repeated
  --seconds N    for each target (default: ${secondsDefault})
  --seed N       repeats the inputs of an earlier run (default: a random one, printed)
  --replay FILE  runs one input, with --only NAME
  --silence N    a target that gets no further for N seconds hangs (default: ${silenceSecondsDefault})

An input that fails is kept below .cache/fuzz/, and the run ends with exit code 1.
`;

interface Choice {
  readonly seed: number;
  readonly seconds: number;
  readonly replayPath: string | undefined;
  readonly silenceSecondsMax: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      seconds: { type: 'string', default: String(secondsDefault) },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
      replay: { type: 'string' },
      silence: { type: 'string', default: String(silenceSecondsDefault) },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const seconds = numberOf('seconds', values.seconds);
  const seed = numberOf('seed', values.seed);
  const silenceSecondsMax = numberOf('silence', values.silence);
  const names = values.only ?? fuzzTargets.map(({ name }) => name);
  const unknown = names.filter((name) => findTarget(name) === undefined);
  if (unknown.length > 0) throw new TypeError(`no target ${unknown.join(', ')}`);
  if (values.replay !== undefined && names.length !== 1) {
    throw new TypeError('--replay needs one --only NAME');
  }
  const replayPath = values.replay === undefined ? undefined : resolve(values.replay);
  for (const name of names) {
    const isWell = await fuzz(name, { seed, seconds, replayPath, silenceSecondsMax });
    if (!isWell) process.exitCode = 1;
  }
}

function numberOf(option: string, text: string): number {
  const number = Number(text);
  if (text === '' || !Number.isFinite(number) || number < 0) {
    throw new TypeError(`--${option} takes a number, not ${text}`);
  }
  return number;
}

/** Fuzzes one target in a process of its own, so that a crash, a hang and its memory are its own. */
function fuzz(name: string, choice: Choice): Promise<boolean> {
  const { seed, seconds, replayPath, silenceSecondsMax } = choice;
  const directory = join(packageRoot(), '.cache', 'fuzz');
  mkdirSync(directory, { recursive: true });
  const currentInputPath = join(directory, `${name}-${process.pid}.current`);
  const run = {
    seed,
    seconds,
    currentInputPath,
    ...(replayPath === undefined ? {} : { replayPath }),
  };
  console.log(`${name}: ${replayPath ?? `seed ${seed}, ${seconds} s`}`);
  const child = fork(compiledEntry('test/fuzz/fuzz-process.ts'), [name, JSON.stringify(run)], {
    execArgv: ['--expose-gc', `--max-old-space-size=${heapMebibytesMax}`],
  });
  let hasHung = false;
  let heardAtMs = performance.now();
  // Until it has said something it is starting.
  let patienceSeconds = silenceSecondsDefault;
  child.on('message', () => {
    heardAtMs = performance.now();
    patienceSeconds = silenceSecondsMax;
  });
  const watch = setInterval(() => {
    if (performance.now() - heardAtMs < patienceSeconds * 1_000) return;
    hasHung = true;
    child.kill('SIGKILL');
  }, 1_000);
  return new Promise((finish) => {
    child.on('exit', (code, signal) => {
      clearInterval(watch);
      // 1: it has said and kept what failed.
      if (code !== 0 && code !== 1) {
        const reason = hasHung ? `hangs for ${patienceSeconds} s` : `ends by ${signal ?? code}`;
        const input = existsSync(currentInputPath)
          ? readFileSync(currentInputPath)
          : Buffer.alloc(0);
        tellFailure(name, reason, input);
      }
      rmSync(currentInputPath, { force: true });
      finish(code === 0);
    });
  });
}

/** Says what fails, and how to see it again. */
function tellFailure(name: string, reason: string, input: Uint8Array): void {
  const path = relative(packageRoot(), saveFailure(name, input));
  console.log(`${name}: FAILED, ${reason}\n  npm run fuzz -- --only ${name} --replay ${path}`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof TypeError)) throw error;
  process.stderr.write(`${error.message}\n\n${usage}`);
  process.exitCode = 2;
}
