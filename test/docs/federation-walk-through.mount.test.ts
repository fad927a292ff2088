import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { compiledEntry, packageRoot } from '../../common/runtime/package-root.ts';
import { freePort } from '../support/external-broker.ts';
import { describeUnless, fuseObstacle } from '../support/requirements.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const title = 'A federation of three sites';
const portsInText = ['8883', '8884', '8443', '8444'];
/** Below the test's own limit, so that what was printed is in the report. */
const runMaxMs = 100_000;

/** What an operator types, in the order of the section. */
function shellBlocks(): string[] {
  const text = readFileSync(join(packageRoot(), 'docs', 'OPERATING.md'), 'utf8');
  const section = text.split(/^## /m).find((each) => each.startsWith(`${title}\n`)) ?? '';
  return Array.from(section.matchAll(/^```sh\n([\s\S]*?)^```$/gm), ([, block = '']) => block);
}

/** On one machine: the loopback address for every name, a free port for every port. */
async function onThisMachine(script: string): Promise<string> {
  let text = script.replaceAll(/[a-z]+\.example\b|\b0\.0\.0\.0\b/g, '127.0.0.1');
  for (const port of portsInText) {
    expect(text).toContain(port);
    text = text.replaceAll(new RegExp(`\\b${port}\\b`, 'g'), String(await freePort()));
  }
  return text;
}

/** Runs a script by bash in a process group of its own, of which nothing is left behind. */
async function runScript(
  script: string,
  directory: string,
): Promise<{ readonly exitCode: number | null; readonly printed: string }> {
  const program = join(directory, 'isobar');
  writeFileSync(
    program,
    `#!/bin/sh\nexec '${process.execPath}' '${compiledEntry('cli/main.ts')}' "$@"\n`,
  );
  chmodSync(program, 0o755);
  const child = spawn('bash', ['-euc', script], {
    cwd: directory,
    detached: true,
    env: { ...process.env, PATH: `${directory}:${process.env['PATH']}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
    });
  }
  const groupId = child.pid;
  const timer = setTimeout(() => {
    // In order first: the mount goes with its supervisor.
    if (groupId !== undefined) process.kill(-groupId, 'SIGTERM');
  }, runMaxMs);
  try {
    await once(child, 'exit');
  } finally {
    clearTimeout(timer);
  }
  return { exitCode: child.exitCode, printed };
}

describeUnless(fuseObstacle(), 'docs/OPERATING.md', () => {
  test(`'${title}': its commands, typed in that order, bring a saved value to the primary site`, async () => {
    using directory = temporaryDirectory();
    const script = await onThisMachine(shellBlocks().join('\n'));
    const { exitCode, printed } = await runScript(script, directory.path);
    expect(printed).toMatch(/vm1 kpi\/users\/column1 {2}42/);
    expect(printed).toMatch(/source-intermediary +upstream +live/);
    expect(exitCode === 0 ? '' : printed).toBe('');
  });
});
