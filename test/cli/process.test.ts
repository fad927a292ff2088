import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

import { Hono } from 'hono';
import { stream } from 'hono/streaming';
import { describe, expect, test } from 'vitest';

import { locateDataDirectory } from '../../cli/data-directory.ts';
import { ControlServer } from '../../common/control/control-server.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { runIsobar } from '../support/command-line.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const isobar = `"${process.execPath}" "${compiledEntry('cli/main.ts')}"`;

const stackLine = /\n {4}at /;

/** Runs a script in which `isobar` talks to a reader whose watch never ends. */
async function runScript(
  script: string,
  environment: NodeJS.ProcessEnv = {},
): Promise<{ readonly exitCode: unknown; readonly stdout: string; readonly stderr: string }> {
  using directory = temporaryDirectory();
  const line = JSON.stringify({
    position: 1,
    vm: 'vm1',
    dataPoint: 'kpi/users/column1',
    timeUs: 0,
    value: 42,
    specifierId: 'kpi',
    format: 'raw',
  });
  const app = new Hono().get('/v1/watch', (context) =>
    stream(context, async (output) => {
      while (!output.aborted) {
        await output.writeln(line);
        await output.sleep(1);
      }
    }),
  );
  const server = new ControlServer(
    app,
    { clock: new SystemClock(), log: silentLog },
    {
      name: 'reader',
      socketPath: locateDataDirectory(directory.path, {}, 0).sockets.primarySite,
    },
  );
  await server.start();
  try {
    const child = spawn('bash', ['-c', script], {
      env: { ...process.env, ISOBAR_DATA_DIR: directory.path, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [[exitCode], stdout, stderr] = await Promise.all([
      once(child, 'exit'),
      text(child.stdout),
      text(child.stderr),
    ]);
    return { exitCode, stdout, stderr };
  } finally {
    await server.stop();
  }
}

/** What `--help` of a command prints, and of every command that it lists, however deep. */
async function helpOf(path: readonly string[] = []): Promise<(readonly [string, string])[]> {
  const shown = `${(await runIsobar([...path, '--help'])).lines.join('\n')}\n`;
  const listed = /\nCommands:\n((?: {2,}.*\n)+)/.exec(shown)?.[1] ?? '';
  const names = Array.from(listed.matchAll(/^ {2}([a-z-]+)/gm), ([, name = '']) => name);
  const below = await Promise.all(names.map((name) => helpOf([...path, name])));
  return [[path.join(' '), shown], ...below.flat()];
}

describe('the command as a process', () => {
  test('--help of every command has a description and examples', async () => {
    const shown = await helpOf();
    expect(shown.map(([path]) => path)).toContain('vm set-monitoring');
    expect(shown.length).toBeGreaterThan(20);
    // Usage, what it does, ..., examples that can be typed as they are.
    const complete = /^Usage: isobar.*\n\n\S[^]*\n\nExamples:\n {2}\$ .*isobar /;
    expect(shown.filter(([, help]) => !complete.test(help))).toEqual([]);
    for (const path of ['', 'watch', 'vm', 'vm set-monitoring']) {
      const { stdout, exitCode } = await runScript(`${isobar} ${path} --help`);
      expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: new Map(shown).get(path) });
    }
  });

  test.each([
    ['config example vm > /dev/full', 1, "standard output can't be written (ENOSPC"],
    ['--help > /dev/full', 1, "standard output can't be written (ENOSPC"],
    ['demo', 78, 'set TMPDIR to one that this user may write'],
  ])(
    'on a disk that takes nothing isobar %s ends with a sentence',
    async (command, code, sentence) => {
      const { exitCode, stderr } = await runScript(`${isobar} ${command}`, {
        TMPDIR: '/proc/none',
      });
      expect(exitCode).toBe(code);
      expect(stderr).toContain(sentence);
      expect(stderr).not.toMatch(stackLine);
    },
  );

  test('`isobar watch | head -1` ends quietly with exit code 0', async () => {
    const { exitCode, stdout, stderr } = await runScript(
      `${isobar} watch | head -1; exit \${PIPESTATUS[0]}`,
    );
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).toBe('1970-01-01T00:00:00.000Z  vm1 kpi/users/column1  42\n');
  });

  test.each([
    [0, 'config example vm'],
    [1, 'query --data-dir /nonexistent'],
    [2, 'query --limit many'],
    [2, 'vm show'],
    [78, 'config check /nonexistent/vm.json'],
    [78, "config check --as vm - <<< '{}'"],
  ])('exit code %i: isobar %s, and no stack trace', async (exitCode, commandLine) => {
    const result = await runScript(`${isobar} ${commandLine}`);
    expect(result).toMatchObject({ exitCode });
    expect(result.stderr === '').toBe(exitCode === 0);
    expect(result.stderr).not.toMatch(/\n {4}at /);
  });

  test('Ctrl-C ends a watch with exit code 0', async () => {
    const { exitCode, stderr } = await runScript(
      `coproc ${isobar} watch; read -r <&"\${COPROC[0]}"; pid=$COPROC_PID; kill -INT $pid; wait $pid`,
    );
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  });

  test('an operating error has no stack trace; --debug shows it', async () => {
    const plain = await runScript(`${isobar} query --data-dir /nonexistent`);
    expect(plain.exitCode).toBe(1);
    expect(plain.stderr).toMatch(/^error: .*start it with: isobar up --data-dir \/nonexistent\n$/);
    const debug = await runScript(`${isobar} query --data-dir /nonexistent --debug`);
    expect(debug.stderr).toMatch(/\n {4}at /);
  });

  test.each([
    ['--since 10', 'error: '],
    ['--limit 0', 'error: '],
    ['--no-such-option', 'error: '],
  ])('exit code 2 (usage): isobar query %s', async (options, message) => {
    const { exitCode, stdout, stderr } = await runScript(`${isobar} query ${options}`);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(stackLine);
  });

  test('exit code 2 (usage): a command that does not exist, and a part without its configuration', async () => {
    const unknown = await runScript(`${isobar} sattus`);
    expect(unknown.exitCode).toBe(2);
    expect(unknown.stderr).toContain('Did you mean status?');
    for (const part of ['guest', 'collector', 'site']) {
      const { exitCode, stderr } = await runScript(`${isobar} ${part} run`);
      expect({ part, exitCode }).toEqual({ part, exitCode: 2 });
      expect(stderr).toContain('--config');
    }
  });

  test('exit code 78 (config): config check, and each part on such a configuration, name every problem', async () => {
    const wrong = `printf '{"mountPath": 7, "dataDirectory": 8, "no": 9}' > "$ISOBAR_DATA_DIR/wrong.json"`;
    for (const command of ['guest run', 'collector run', 'site run']) {
      const { exitCode, stderr } = await runScript(
        `${wrong}; ${isobar} ${command} --config "$ISOBAR_DATA_DIR/wrong.json"`,
      );
      expect({ command, exitCode }).toEqual({ command, exitCode: 78 });
      expect(stderr).toMatch(/ dataDirectory = 8: [\s\S]* no = 9: unknown key/);
      expect(stderr).not.toMatch(stackLine);
    }
    const check = await runScript(
      `${wrong}; ${isobar} config check --as guest-agent "$ISOBAR_DATA_DIR/wrong.json"`,
    );
    expect(check.exitCode).toBe(78);
  });

  test('exit code 78: a data directory that can not be made ends `isobar up` at once with what to do', async () => {
    // mkdir(2) in /proc gives ENOENT. Had it no bound, no signal would end it.
    const up = await runScript(`timeout -s KILL 15 ${isobar} up --data-dir /proc/isobar/data`);
    expect(up.exitCode).toBe(78);
    expect(up.stderr).toMatch(/^error: the directory \/proc\/isobar\S* can't be made .* choose /);
  });

  test('colour only on a terminal, and never with NO_COLOR', async () => {
    const onTerminal = `script -qec '${isobar} query --data-dir /nonexistent' /dev/null`;
    const terminal = await runScript(onTerminal, { TERM: 'xterm', NO_COLOR: '' });
    expect(terminal.stdout).toContain('\u001B[31m');
    const refused = await runScript(onTerminal, { TERM: 'xterm', NO_COLOR: '1' });
    expect(refused.stdout).toContain('error:');
    expect(refused.stdout).not.toContain('\u001B[');
    const pipe = await runScript(`${isobar} query --data-dir /nonexistent`, { TERM: 'xterm' });
    expect(pipe.stderr).not.toContain('\u001B[');
  });
});
