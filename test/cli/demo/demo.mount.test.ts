import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';

import { expect, test } from 'vitest';

import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

async function demo(
  directory: string,
  commandLine: readonly string[],
): Promise<{ readonly code: number | null; readonly last: string }> {
  const child = spawn(process.execPath, [compiledEntry('cli/main.ts'), 'demo', ...commandLine], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TMPDIR: directory },
  });
  const [output] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  return { code: child.exitCode, last: output.trimEnd().split('\n').at(-1) ?? '' };
}

const flawless = /^sent (\d+), stored \1, lost 0, twice 0, out of order 0$/;

describeUnless(fuseObstacle(), 'npm run demo', () => {
  test('a federation on one machine ends with a verdict, and leaves nothing behind', async () => {
    using directory = temporaryDirectory();
    const { code, last } = await demo(directory.path, ['--seconds', '2']);
    expect(last).toMatch(flawless);
    expect(code).toBe(0);
    expect(readdirSync(directory.path)).toEqual([]);
    expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(directory.path);
  });

  test('--kill intermediary stops it and starts it again: nothing lost, nothing twice, in order', async () => {
    using directory = temporaryDirectory();
    const commandLine = ['--kill', 'intermediary', '--seconds', '6', '--down-seconds', '2'];
    const { code, last } = await demo(directory.path, commandLine);
    expect(last).toMatch(flawless);
    expect(code).toBe(0);
  });
});
