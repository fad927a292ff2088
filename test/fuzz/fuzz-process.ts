import assert from 'node:assert';
import { relative } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';
import { runTarget, saveFailure, type FuzzRun } from './run-target.ts';
import { findTarget } from './targets.ts';

/* One target, in a process of its own: fuzz-process.js NAME RUN, where RUN is a FuzzRun in JSON. Exits 1 if it fails. */

// Whoever started it has gone.
process.on('disconnect', () => process.exit(1));

const [, , name = '', runJson = ''] = process.argv;
const target = findTarget(name);
assert(target !== undefined, `no target ${name}`);
const outcome = await runTarget(await target.load(), JSON.parse(runJson) as FuzzRun);
const figures = [
  `${outcome.inputCount} inputs, ${outcome.keptCount} of them kept ones`,
  `slowest ${Math.round(outcome.slowestCpuMs)} ms`,
  `memory ${(outcome.growthBytes / 1_048_576).toFixed(1)} MiB more`,
];
console.log(`${name}: ${figures.join(', ')}`);
if (outcome.failure !== undefined) {
  const { reason, input } = outcome.failure;
  const path = relative(packageRoot(), saveFailure(name, input));
  console.log(`${name}: FAILED, ${reason}\n  npm run fuzz -- --only ${name} --replay ${path}`);
}
// What a target leaves open must not keep the process.
process.exit(outcome.failure === undefined ? 0 : 1);
