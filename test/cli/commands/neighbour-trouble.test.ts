import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';
import { expect, test } from 'vitest';

import { ControlServer } from '../../../common/control/control-server.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { runIsobar } from '../../support/command-line.ts';
import { withInstance } from '../../support/served-instance.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

function answer(document: object): Hono {
  return new Hono().get('/v1/status', (context) => context.json(document));
}

test("why a neighbour can't be reached is in the status of who dials it", async () => {
  const failure = 'connect ECONNREFUSED 192.0.2.1:8883';
  const reader = { isLive: false, failure, vms: [], stages: {} };
  await withInstance({ primarySite: answer(reader) }, async (run) => {
    const { remarks, exitCode } = await run(['status']);
    expect(exitCode).toBe(1);
    expect(remarks).toContain(`the reader is not connected to its producer: ${failure}`);
  });
  using directory = temporaryDirectory();
  const controlSocket = join(directory.path, 'relay.sock');
  const config = join(directory.path, 'relay.json');
  writeFileSync(config, JSON.stringify({ dataDirectory: directory.path, controlSocket }));
  const neighbour = {
    relation: 'a-b',
    direction: 'upstream',
    isLive: false,
    failure,
    delays: null,
  };
  const relay = {
    listens: null,
    control: null,
    vms: [],
    logBytes: 0,
    bufferedBytes: 0,
    stages: {},
  };
  const server = new ControlServer(
    answer({ ...relay, neighbours: [neighbour] }),
    { clock: new SystemClock(), log: silentLog },
    { name: 'relay', socketPath: controlSocket },
  );
  await server.start();
  const { remarks, exitCode } = await runIsobar(['relay', 'status', '--config', config]);
  await server.stop();
  expect(exitCode).toBe(1);
  expect(remarks.join('\n')).toContain(`relation a-b does not answer: ${failure}`);
});

test('at the source a neighbour that is gone is a problem, with the cause', async () => {
  using directory = temporaryDirectory();
  const controlSocket = join(directory.path, 'collector.sock');
  const config = join(directory.path, 'collector.json');
  writeFileSync(config, JSON.stringify({ dataDirectory: directory.path, controlSocket }));
  const neighbours = [
    { relation: 'a-b', isLive: true, failure: null },
    { relation: 'a-c', isLive: false, failure: 'connect ETIMEDOUT 192.0.2.1:8883' },
  ];
  const server = new ControlServer(
    answer({ neighbours, vms: [], stages: {} }),
    { clock: new SystemClock(), log: silentLog },
    { name: 'host-collector', socketPath: controlSocket },
  );
  await server.start();
  const { lines, remarks, exitCode } = await runIsobar(['status', '--config', config]);
  await server.stop();
  expect(exitCode).toBe(1);
  expect(lines).toEqual(expect.arrayContaining(['a-b        live', 'a-c        silent']));
  expect(remarks.join('\n')).toContain('relation a-c does not answer: connect ETIMEDOUT');
  expect(remarks.join('\n')).not.toContain('a-b');
});
