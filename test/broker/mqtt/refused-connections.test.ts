import { connect } from 'node:tls';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { Refusals, type RefusalReason } from '../../../broker/mqtt/neighbour-listener.ts';
import { withdrawTrust } from '../../../common/identity/invitation.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { eventually } from '../../support/eventually.ts';
import { Federation } from '../../support/federation.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { recordedLog } from '../../support/recorded-log.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';

const clock = new SystemClock();
const timeoutMs = 10_000;

let federation: Federation;
beforeEach(() => {
  federation = new Federation();
});
afterEach(async () => {
  await federation.close();
});

/** Site p produces for site c. */
async function relation() {
  const p = await makeSite(federation.parent, 'site-p', { listen: ['127.0.0.1:8883'] });
  const c = await makeSite(federation.parent, 'site-c');
  await makeNeighbours('p-c', p, c);
  return { p, producer: await federation.identity(p), consumer: await federation.identity(c) };
}

async function refused(broker: EmbeddedBroker, reason: RefusalReason, times: number) {
  return eventually(() => broker.refusals.count(reason) >= times, { timeoutMs });
}

async function comeWithoutCertificate(broker: EmbeddedBroker): Promise<void> {
  const { port } = new URL(broker.neighbourUrl);
  const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
  socket.on('error', () => {});
  socket.resume();
  await new Promise((resolve) => {
    socket.on('close', resolve);
  });
}

describe('what both ends say of a refused connection', () => {
  test('who is not trusted by its neighbour says so once, with relation and address', async () => {
    const { p, producer, consumer } = await relation();
    const broker = await federation.broker(producer);
    await withdrawTrust(clock, p, 'p-c');
    await producer.reload();
    const { log, records } = recordedLog();
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl, log);
    expect(await refused(broker, 'handshake-failed', 5)).toBe(true);
    await eventually(() => client.failure !== undefined, { timeoutMs });
    const said = { relation: 'p-c', address: broker.neighbourUrl };
    const causes = new Set(records.map(({ cause }) => cause));
    expect(causes.size).toBe(records.length);
    for (const record of records) {
      expect(record).toMatchObject({ event: 'mqtt-not-connected', ...said });
      expect(record['cause']).toContain('does it trust this site');
    }
  });

  test('a server whose certificate is not the pinned one is named in the log of who dialled', async () => {
    const { consumer } = await relation();
    const stranger = await makeSite(federation.parent, 'site-s');
    const broker = await federation.broker(await federation.identity(stranger));
    const { log, records } = recordedLog();
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl, log);
    expect(await refused(broker, 'handshake-failed', 3)).toBe(true);
    await eventually(() => client.failure !== undefined, { timeoutMs });
    expect(records).toMatchObject([
      {
        relation: 'p-c',
        address: broker.neighbourUrl,
        cause: expect.stringMatching(/certificate/),
      },
    ]);
  });

  test('refusals are logged with the address, the first at once and then a count a minute', async () => {
    const { producer } = await relation();
    const time = new ManualClock(clock.wallUs());
    const { log, records } = recordedLog();
    const broker = await federation.broker(producer, {}, { log, clock: time });
    for (let count = 0; count < 3; count += 1) await comeWithoutCertificate(broker);
    expect(await refused(broker, 'handshake-failed', 3)).toBe(true);
    const first = {
      event: 'neighbour-refused',
      reason: 'handshake-failed',
      address: '127.0.0.1',
      cause: expect.any(String),
    };
    expect(records).toMatchObject([first]);
    await time.advance(60_000);
    await comeWithoutCertificate(broker);
    expect(await refused(broker, 'handshake-failed', 4)).toBe(true);
    expect(records).toMatchObject([first, { ...first, leftOutCount: 2 }]);
  });

  test('a crowd of addresses shares one line a minute beyond 16', () => {
    const { log, records } = recordedLog();
    const refusals = new Refusals({ log, clock: new ManualClock(0) });
    for (let count = 0; count < 1_000; count += 1) {
      refusals.add('unknown-peer', { address: `fd00::${count}` });
    }
    expect(records.length).toBe(17);
    expect(refusals.count('unknown-peer')).toBe(1_000);
  });
});
