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
const firewallTitle = 'A source behind a firewall';
const portsInText = ['8883', '8884', '8885', '8443', '8444'];
/** Below the test's own limit, so that what was printed is in the report. */
const runMaxMs = 100_000;

/** What an operator types, in the order of a section. */
function shellBlocks(ofTitle: string): string[] {
  const text = readFileSync(join(packageRoot(), 'docs', 'OPERATING.md'), 'utf8');
  const section = text.split(/^## /m).find((each) => each.startsWith(`${ofTitle}\n`)) ?? '';
  return Array.from(section.matchAll(/^```sh\n([\s\S]*?)^```$/gm), ([, block = '']) => block);
}

/** Which file it writes, or which command it begins with. */
function purposeOf(block: string): string {
  return block.split(/\s/).slice(0, 3).join(' ');
}

/** The blocks of the first section, but for those that the second has another of: of the same file, or of the sites. */
function firewallBlocks(): string[] {
  const others = new Map(shellBlocks(firewallTitle).map((block) => [purposeOf(block), block]));
  expect(others.size).toBe(4);
  const blocks = shellBlocks(title).map((block) => {
    const other = others.get(purposeOf(block));
    others.delete(purposeOf(block));
    return other ?? block;
  });
  expect([...others.keys()]).toEqual([]);
  return blocks;
}

/** On one machine: the loopback address for every name, a free port for every port. */
async function onThisMachine(script: string): Promise<string> {
  let text = script.replaceAll(/[a-z]+\.example\b|\b0\.0\.0\.0\b/g, '127.0.0.1');
  for (const port of portsInText) {
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
  test.each([
    [title, () => shellBlocks(title)],
    [firewallTitle, firewallBlocks],
  ] as const)(
    "'%s': its commands, typed in that order, bring a saved value to the primary site",
    async (_title, blocks) => {
      using directory = temporaryDirectory();
      const script = await onThisMachine(blocks().join('\n'));
      const { exitCode, printed } = await runScript(script, directory.path);
      expect(printed).toMatch(/vm1 kpi\/users\/column1 {2}42/);
      expect(printed).toMatch(/source-intermediary +upstream +live/);
      expect(exitCode === 0 ? '' : printed).toBe('');
    },
  );
});
