import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { compiledEntry } from '../../common/runtime/package-root.ts';

/** Of each target in a test; `npm run fuzz` gives it minutes. */
export const secondsInTests = 2;

/** What `npm run fuzz` with these options comes to. */
export async function fuzzRun(
  ...options: readonly string[]
): Promise<{ readonly exitCode: number | null; readonly output: string }> {
  const child = spawn(process.execPath, [compiledEntry('test/fuzz/main.ts'), ...options]);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  await once(child, 'close');
  return { exitCode: child.exitCode, output };
}
