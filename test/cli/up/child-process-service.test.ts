import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { ChildProcessService } from '../../../cli/up/child-process-service.ts';
import { LastWords } from '../../../cli/up/last-words.ts';
import { RotatingFile } from '../../../cli/up/rotating-file.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

interface Fixture extends Disposable {
  readonly service: ChildProcessService;
  readonly output: () => string;
  readonly trace: () => string[];
}

function fixture(config: object, options: { readonly drainMaxMs?: number } = {}): Fixture {
  const directory = temporaryDirectory();
  const tracePath = join(directory.path, 'trace');
  const configPath = join(directory.path, 'config.json');
  writeFileSync(configPath, JSON.stringify({ tracePath, ...config }));
  let output = '';
  const service = new ChildProcessService(
    {
      name: 'fixture',
      entry: compiledEntry('test/support/program-fixture.ts'),
      arguments: ['--config', configPath],
      restartPolicy: { initialMs: 1, maxMs: 20, attemptsMax: Number.POSITIVE_INFINITY },
      ...options,
    },
    {
      clock: new SystemClock(),
      random: new SystemRandom(),
      log: silentLog,
      takeOutput: (chunk) => {
        output += chunk.toString();
      },
    },
  );
  return {
    service,
    output: () => output,
    trace: () => (existsSync(tracePath) ? readFileSync(tracePath, 'utf8').trim().split('\n') : []),
    [Symbol.dispose]: () => {
      service.kill();
      directory[Symbol.dispose]();
    },
  };
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe('ChildProcessService', () => {
  test('start resolves when the child is ready; stop lets it drain', async () => {
    using child = fixture({});
    await child.service.start();
    const { pid } = child.service.status();
    expect(isAlive(pid!)).toBe(true);
    await child.service.stop();
    await child.service.stop();
    expect(isAlive(pid!)).toBe(false);
    expect(child.trace()).toEqual(['start', 'stop']);
    expect(child.output()).toContain('"event":"stopped"');
  });

  test('a child that dies is started again', async () => {
    using child = fixture({});
    await child.service.start();
    const { pid } = child.service.status();
    process.kill(pid!, 'SIGKILL');
    const status = await eventually(
      () => {
        const now = child.service.status();
        return now.restartCount === 1 && now.pid !== null ? now : undefined;
      },
      { timeoutMs: 10_000 },
    );
    expect(status.pid).not.toBe(pid);
    await eventually(() => child.trace().length === 2, { timeoutMs: 10_000 });
    await child.service.stop();
    expect(isAlive(status.pid!)).toBe(false);
  });

  test('a crash loop ends with stop', async () => {
    using child = fixture({ behaviour: 'crashes' });
    await child.service.start();
    await eventually(() => child.service.status().restartCount >= 2, { timeoutMs: 10_000 });
    await child.service.stop();
    const { restartCount } = child.service.status();
    expect(child.service.status().pid).toBeNull();
    expect(restartCount).toBeGreaterThanOrEqual(2);
  });

  test('a child that fails to start is an error with its last words', async () => {
    using child = fixture({ behaviour: 'fails-to-start' });
    await expect(child.service.start()).rejects.toMatchObject({
      code: 'child-failed',
      message: 'fixture did not start (exit code 1): port 1 is taken: choose another',
    });
  });

  test('a wrong configuration is an error with all its problems', async () => {
    using child = fixture({ behaviour: 'odd', speed: 3 });
    await expect(child.service.start()).rejects.toMatchObject({
      message: expect.stringMatching(/exit code 78[\s\S]*behaviour = "odd"[\s\S]*speed = 3/),
    });
  });

  test('a child that does not drain in time is killed', async () => {
    using child = fixture({ behaviour: 'hangs-in-stop' }, { drainMaxMs: 50 });
    await child.service.start();
    const { pid } = child.service.status();
    await child.service.stop();
    expect(isAlive(pid!)).toBe(false);
    expect(child.trace()).toEqual(['start', 'stop']);
  });
});

describe('RotatingFile', () => {
  test('logs are bounded: the oldest file is dropped', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'logs', 'part.log');
    using file = new RotatingFile(path, { fileBytesMax: 8, filesMax: 3 });
    for (const line of ['1111\n', '2222\n', '3333\n', '4444\n']) file.write(Buffer.from(line));
    expect([path, `${path}.1`, `${path}.2`].map((each) => readFileSync(each, 'utf8'))).toEqual([
      '4444\n',
      '3333\n',
      '2222\n',
    ]);
    expect(existsSync(`${path}.3`)).toBe(false);
  });

  test('goes on where an earlier run ended', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'part.log');
    for (const line of ['a\n', 'b\n']) {
      using file = new RotatingFile(path);
      file.write(Buffer.from(line));
    }
    expect(readFileSync(path, 'utf8')).toBe('a\nb\n');
  });
});

describe('LastWords', () => {
  test.each([
    ['{"level":30,"event":"x"}\n{"level":50,"message":"disk full"}\n', 'disk full'],
    ['cut off"}\nError: no\n{"level":30}\n', 'cut off"}\nError: no'],
    ['', 'it said nothing'],
  ])('%j', (text, summary) => {
    const words = new LastWords();
    words.add(Buffer.from(text));
    expect(words.summary()).toBe(summary);
  });
});
