import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { eventually } from '../../support/eventually.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

interface Run extends Disposable {
  readonly child: ChildProcess;
  readonly stderr: () => string;
  readonly stdout: () => string;
  readonly trace: () => string[];
  readonly exited: Promise<readonly [number | null, NodeJS.Signals | null]>;
}

function run(config: object, extraArguments: readonly string[] = []): Run {
  const directory = temporaryDirectory();
  const tracePath = join(directory.path, 'trace');
  const configPath = join(directory.path, 'config.json');
  writeFileSync(configPath, JSON.stringify({ tracePath, ...config }));
  const entry = compiledEntry('test/support/program-fixture.ts');
  const child = spawn(process.execPath, [entry, '--config', configPath, ...extraArguments], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let stderr = '';
  let stdout = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  return {
    child,
    stderr: () => stderr,
    stdout: () => stdout,
    trace: () => (existsSync(tracePath) ? readFileSync(tracePath, 'utf8').trim().split('\n') : []),
    exited: exitOf(child),
    [Symbol.dispose]: () => {
      child.kill('SIGKILL');
      directory[Symbol.dispose]();
    },
  };
}

/** `close` never comes after a disconnect, so wait for each of its conditions. */
async function exitOf(
  child: ChildProcess,
): Promise<readonly [number | null, NodeJS.Signals | null]> {
  const streams = [child.stdout, child.stderr].filter((stream) => stream !== null);
  const [exit] = await Promise.all([
    once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>,
    ...streams.map((stream) => once(stream, 'end')),
  ]);
  return exit;
}

describe('runProcess', () => {
  test('tells its parent that it is ready, drains at one SIGTERM and exits 0', async () => {
    using process = run({});
    expect(await once(process.child, 'message')).toEqual([{ kind: 'ready' }, undefined]);
    process.child.kill('SIGTERM');
    expect(await process.exited).toEqual([0, null]);
    expect(process.trace()).toEqual(['start', 'stop']);
  });

  test('SIGTERM/SIGINT once drains, twice stops now', async () => {
    using process = run({ behaviour: 'hangs-in-stop' });
    await once(process.child, 'message');
    process.child.kill('SIGINT');
    await eventually(() => process.trace().includes('stop'), { timeoutMs: 5_000 });
    await eventually(
      () => {
        process.child.kill('SIGINT');
        return process.child.signalCode !== null;
      },
      { timeoutMs: 5_000, pollMs: 50 },
    );
    expect(await process.exited).toEqual([null, 'SIGINT']);
  });

  test('takes signals that come together for one: npm forwards what the terminal sent', async () => {
    using process = run({});
    await once(process.child, 'message');
    for (let count = 0; count < 5; count += 1) process.child.kill('SIGINT');
    expect(await process.exited).toEqual([0, null]);
    expect(process.trace()).toEqual(['start', 'stop']);
  });

  test('stops when its parent is gone', async () => {
    using process = run({});
    await once(process.child, 'message');
    process.child.disconnect();
    expect(await process.exited).toEqual([0, null]);
    expect(process.stderr()).toContain('parent-gone');
  });

  test('a failing start is one log event without a stack, and exit 1', async () => {
    using process = run({ behaviour: 'fails-to-start' });
    expect(await process.exited).toEqual([1, null]);
    expect(process.stderr()).toContain('port 1 is taken: choose another');
    expect(process.stderr()).not.toContain('    at ');
  });

  test('a failing stop that leaves work behind ends by force, and what lingers is logged', async () => {
    using process = run({ behaviour: 'fails-to-stop' });
    await once(process.child, 'message');
    process.child.kill('SIGTERM');
    expect(await process.exited).toEqual([null, 'SIGKILL']);
    expect(process.stderr()).toContain('stop-failed');
    expect(process.stderr()).toMatch(/"resources":\[.*"Timeout".*lingering/);
  });

  test('an uncaught error is logged with its stack and ends the process at once', async () => {
    using process = run({ behaviour: 'crashes' });
    expect(await process.exited).toEqual([null, 'SIGKILL']);
    expect(process.stderr()).toContain('crashed');
    expect(process.stderr()).toContain('a bug');
  });

  test('reports all problems of a configuration together and exits 78', async () => {
    using process = run({ tracePath: 7, behaviour: 'odd', speed: 3 });
    expect(await process.exited).toEqual([78, null]);
    for (const path of ['tracePath', 'behaviour', 'speed']) {
      expect(process.stderr()).toContain(`  ${path} = `);
    }
  });

  test('--check-config checks, starts nothing and exits 0', async () => {
    using process = run({}, ['--check-config']);
    expect(await process.exited).toEqual([0, null]);
    expect(process.stdout()).toMatch(/config\.json: ok\n$/);
    expect(process.trace()).toEqual([]);
  });

  test.each([
    ['error', [], false],
    ['error', ['--log-level', 'info'], true],
    ['info', [], true],
  ])(
    'logs what its configuration says (%s), unless the command line %j does',
    async (logLevel, options, isLogged) => {
      using process = run({ logLevel }, options);
      await once(process.child, 'message');
      process.child.kill('SIGTERM');
      await process.exited;
      expect(process.stderr().includes('"started"')).toBe(isLogged);
    },
  );

  test('two processes never work in one data directory; after kill -9 the next may at once', async () => {
    using directory = temporaryDirectory();
    const config = { dataDirectory: directory.path };
    using first = run({ ...config, behaviour: 'collects-garbage' });
    await once(first.child, 'message');
    using second = run(config);
    expect(await second.exited).toEqual([1, null]);
    expect(second.stderr()).toContain(`another fixture works in ${directory.path}: stop it first`);
    expect(second.trace()).toEqual([]);
    first.child.kill('SIGKILL');
    await first.exited;
    using third = run(config);
    expect(await once(third.child, 'message')).toEqual([{ kind: 'ready' }, undefined]);
  });

  test('a wrong command line prints the usage and exits 2', async () => {
    using process = run({}, ['--log-level', 'loud']);
    expect(await process.exited).toEqual([2, null]);
    expect(process.stderr()).toContain('unknown log level loud\nusage: fixture --config FILE');
  });
});
