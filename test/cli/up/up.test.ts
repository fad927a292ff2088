import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';
import { describe, expect, test } from 'vitest';

import { locateDataDirectory } from '../../../cli/data-directory.ts';
import type { MountProcessPart } from '../../../cli/up/process-part.ts';
import { buildUp, type Up } from '../../../cli/up/up.ts';
import { ControlServer } from '../../../common/control/control-server.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { OperatingError } from '../../../common/runtime/operating-error.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import type { Service } from '../../../common/runtime/service.ts';
import { runIsobar } from '../../support/command-line.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const clock = new SystemClock();

/** A part that only notes what happens to it, around a service that may do something. */
function part(name: string, events: string[], service?: Service): MountProcessPart {
  return {
    name,
    isPrivate: false,
    start: async () => {
      await service?.start();
      events.push(`start ${name}`);
    },
    stop: async () => {
      await service?.stop();
      events.push(`stop ${name}`);
    },
    stopNow: () => {
      events.push(`now ${name}`);
      return Promise.resolve();
    },
    status: () => ({ name, pid: 1, startedAtUs: 0, restartCount: 0 }),
  };
}

function upIn(path: string, events: string[], registered: unknown[]): Up {
  const directory = locateDataDirectory(path, {}, 0);
  const api = new Hono().post('/v1/vms', async (context) => {
    const descriptor: unknown = await context.req.json();
    events.push('register');
    if (registered.length > 0) throw new OperatingError('vm-exists', 'it is registered already');
    registered.push(descriptor);
    return context.json(descriptor as object, 201);
  });
  const collector = new ControlServer(
    api,
    { clock, log: silentLog },
    { name: 'collector', socketPath: directory.sockets.hostCollector },
  );
  return buildUp(
    { directory, mount: directory.mount, fuseBackend: 'dev-fuse', mqttPort: 1_883 },
    { clock, random: new SystemRandom(), log: silentLog, hostName: 'web.example' },
    {
      primarySite: part('primary-site', events),
      hostCollector: part('host-collector', events, collector),
      guestAgent: part('guest-agent', events),
    },
  );
}

describe('isobar up', () => {
  test('starts sink to source, registers this machine, stops source to sink', async () => {
    using directory = temporaryDirectory();
    const events: string[] = [];
    const registered: unknown[] = [];
    const up = upIn(directory.path, events, registered);
    await up.start();
    expect(events).toEqual([
      'start primary-site',
      'start host-collector',
      'register',
      'start guest-agent',
    ]);
    events.length = 0;
    await up.stop();
    expect(events).toEqual(['stop guest-agent', 'stop host-collector', 'stop primary-site']);
    expect(registered).toMatchObject([
      { id: 'web-example', probe: { kind: 'machine' }, monitoring: { specifiers: { length: 3 } } },
    ]);
  });

  test('leaves no socket behind, and keeps the descriptor that was changed since', async () => {
    using directory = temporaryDirectory();
    const registered: unknown[] = [];
    for (let run = 0; run < 2; run += 1) {
      const up = upIn(directory.path, [], registered);
      await up.start();
      await up.stop();
    }
    expect(registered).toHaveLength(1);
    expect(readdirSync(join(directory.path, 'run'))).toEqual([]);
    expect(existsSync(join(directory.path, 'mount'))).toBe(false);
  });

  test('a second one on the same data directory says who runs, and disturbs nothing', async () => {
    using directory = temporaryDirectory();
    const events: string[] = [];
    const first = upIn(directory.path, events, []);
    await first.start();
    events.length = 0;
    const { exitCode, remarks } = await runIsobar(['up', '--data-dir', directory.path]);
    expect(exitCode).toBe(1);
    expect(remarks.at(-1)).toContain(`isobar up is already running here as process ${process.pid}`);
    expect(events).toEqual([]);
    await first.stop();
  });

  test('status shows what runs; a second Ctrl-C stops every part at once', async () => {
    using directory = temporaryDirectory();
    const events: string[] = [];
    const up = upIn(directory.path, events, []);
    await up.start();
    expect(up.status()).toMatchObject({
      mount: join(directory.path, 'mount'),
      mqttUrl: 'mqtt://127.0.0.1:1883',
      processes: [{ name: 'guest-agent' }, { name: 'host-collector' }, { name: 'primary-site' }],
    });
    events.length = 0;
    await up.stopNow();
    expect(events).toEqual(['now guest-agent', 'now host-collector', 'now primary-site']);
    await up.stop();
  });

  test('writes the configuration of each process, for its owner alone', async () => {
    using directory = temporaryDirectory();
    const up = upIn(directory.path, [], []);
    await up.start();
    await up.stop();
    const path = join(directory.path, 'config', 'guest-agent.json');
    expect(statSync(path).mode & 0o077).toBe(0);
    const { exitCode } = await runIsobar(['config', 'check', path]);
    expect(exitCode).toBe(0);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({
      mountPath: join(directory.path, 'mount'),
    });
  });
});
