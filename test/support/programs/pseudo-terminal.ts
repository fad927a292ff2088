import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { eventually } from '../eventually.ts';

export interface Keystrokes {
  /** What the screen must have shown before the keys are typed. */
  readonly after: RegExp;
  readonly keys: string;
}

const screenTimeoutMs = 10_000;

/**
 * Runs a shell command on a pseudo-terminal of `script` and types when the screen asks for it. Resolves when the command
 * has ended. @throws Error with the screen's bytes when it fails or does not show what is waited for.
 */
export async function typeInto(
  command: string,
  strokes: readonly Keystrokes[],
  options: {
    readonly workingDirectory: string;
    readonly environment?: Readonly<Record<string, string>>;
  },
): Promise<void> {
  const child = spawn('script', ['-qefc', command, '/dev/null'], {
    cwd: options.workingDirectory,
    env: { ...process.env, TERM: 'xterm', LINES: '24', COLUMNS: '80', ...options.environment },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let screen = '';
  child.stdout.on('data', (chunk: Buffer) => {
    screen += chunk.toString();
  });
  const closed = once(child, 'close');
  try {
    for (const { after, keys } of strokes) {
      await eventually(() => after.test(screen), { timeoutMs: screenTimeoutMs });
      screen = '';
      child.stdin.write(keys);
    }
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
    }, screenTimeoutMs);
    const [exitCode] = (await closed) as [number | null];
    clearTimeout(timer);
    if (exitCode !== 0) throw new Error(`${command}: exit code ${exitCode}`);
  } catch (cause) {
    child.kill('SIGKILL');
    throw new Error(`${command} showed ${JSON.stringify(screen)}`, { cause });
  }
}
