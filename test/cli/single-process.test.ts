import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';
import { describe, expect, test } from 'vitest';

import { ControlServer } from '../../common/control/control-server.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { runIsobar } from '../support/command-line.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

describe('--config', () => {
  test.each([
    ['relay', ['query'], 'isobar relay status --config FILE'],
    ['relay', ['watch'], 'isobar relay status --config FILE'],
    ['relay', ['vm', 'list'], 'isobar relay status --config FILE'],
    ['host-collector', ['relay', 'status'], 'isobar status --config FILE, or isobar vm list'],
    ['primary-site', ['guest', 'status'], 'isobar status --config FILE, or isobar query'],
    ['guest-agent', ['query'], 'isobar guest status --config FILE'],
  ])('of a %s: isobar %j names the right command', async (name, command, hint) => {
    using directory = temporaryDirectory();
    const config = join(directory.path, 'some.json');
    writeFileSync(config, JSON.stringify({ dataDirectory: directory.path }));
    const socketPath = join(directory.path, 'control.sock');
    const deps = { clock: new SystemClock(), log: silentLog };
    const server = new ControlServer(new Hono(), deps, { name, socketPath });
    await server.start();
    const { exitCode, remarks } = await runIsobar([...command, '--config', config]);
    await server.stop();
    expect(exitCode).toBe(2);
    expect(remarks.join('\n')).toContain(`a ${name} runs with ${config}, and the`);
    expect(remarks.join('\n')).toContain(hint.replace('FILE', config));
  });

  test('of a process that is stopped: isobar status names what starts it', async () => {
    using directory = temporaryDirectory();
    const config = join(directory.path, 'some.json');
    const relations = [{ relation: 'a-b', direction: 'upstream', dial: 'mqtt://127.0.0.1:1' }];
    writeFileSync(config, JSON.stringify({ dataDirectory: directory.path, relations }));
    const { exitCode, remarks } = await runIsobar(['status', '--config', config]);
    expect(exitCode).toBe(1);
    expect(remarks.join('\n')).toMatch(
      new RegExp(`start it with: isobar relay run --config ${config}$`),
    );
  });
});
