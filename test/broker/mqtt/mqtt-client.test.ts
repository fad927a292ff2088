import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

import { expect, test } from 'vitest';

import { ConnectionTrouble } from '../../../broker/mqtt/connection-trouble.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { hostAndPortOf } from '../../../broker/mqtt/listen.ts';
import { MqttClient, mqttClientDefaults } from '../../../broker/mqtt/mqtt-client.ts';
import { createAuthority } from '../../../common/identity/certificate-maker.ts';
import { type Cancel, SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { recordedLog } from '../../support/recorded-log.ts';

/** MQTT 3.1.1, 3.2: accepted, no session. */
const connectAccepted = Uint8Array.of(0x20, 2, 0, 0);
/** More than a socket's buffers take, so that some still wait for room. */
const messageCount = 64;
const messageBytes = 1_000_000;

/** Accepts clients and then reads nothing more of what they send. */
async function startDeafBroker(): Promise<
  AsyncDisposable & { readonly url: string; readonly cut: () => void }
> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.pause();
      socket.write(connectAccepted);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: `mqtt://127.0.0.1:${address.port}`,
    cut,
    [Symbol.asyncDispose]: async () => {
      cut();
      server.close();
      await once(server, 'close');
    },
  };
}

test.each([
  ['the connection breaks', 0],
  ['the connection breaks', 1],
  ['the client stops', 0],
  ['the client stops', 1],
] as const)(
  'a publish that waits for room fails when %s, with QoS %i, and never stays without an answer',
  async (end, qos) => {
    await using broker = await startDeafBroker();
    const client = new MqttClient(
      { clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
      { ...mqttClientDefaults, url: broker.url },
    );
    await client.start();
    await eventually(() => client.isConnected, { timeoutMs: 5_000 });
    const payload = new Uint8Array(messageBytes);
    const published = Array.from({ length: messageCount }, () =>
      client.publish('n/a/down/live', payload, qos),
    );
    const outcomes = Promise.allSettled(published);
    if (end === 'the connection breaks') broker.cut();
    else await client.stop();
    expect((await outcomes).at(-1)).toMatchObject({
      status: 'rejected',
      reason: { code: 'mqtt-publish-failed', retryable: true },
    });
    await client.stop();
  },
);

/** Notes every delay that is asked for, and grants none. */
class ImpatientClock extends SystemClock {
  readonly delaysMs: number[] = [];

  override after(delayMs: number, run: () => void): Cancel {
    this.delaysMs.push(delayMs);
    return super.after(0, run);
  }
}

async function delaysOf(url: string): Promise<number[]> {
  const clock = new ImpatientClock();
  const random = new SystemRandom();
  const client = new MqttClient(
    { clock, random: { bytes: (count) => random.bytes(count), uniform: () => 1 }, log: silentLog },
    { ...mqttClientDefaults, url },
  );
  await client.start();
  await eventually(() => clock.delaysMs.length > 10, { timeoutMs: 10_000 });
  await client.stop();
  return clock.delaysMs;
}

test('however long a broker was away, the next attempt to reach it is at most half a second ahead', async () => {
  const server = createServer((socket) => {
    socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const delaysMs = await delaysOf(`mqtt://${hostAndPortOf(server)}`);
  server.close();
  expect(delaysMs[0]).toBeLessThanOrEqual(50);
  expect(Math.max(...delaysMs)).toBe(500);
});

test('where nobody listens, the next attempt is at most 150 ms ahead: a process that is back is found then', async () => {
  const delaysMs = await delaysOf(`mqtt://127.0.0.1:${await freePort()}`);
  expect(delaysMs[0]).toBeLessThanOrEqual(50);
  expect(delaysMs.slice(2)).toEqual(delaysMs.slice(2).map(() => 150));
});

test('a broker of others that knows TLS 1.2 only is refused', async () => {
  const nowMs = new SystemClock().wallUs() / 1_000;
  const validity = { notBeforeMs: nowMs - 1_000, notAfterMs: nowMs + 3_600_000 };
  const { cert, key } = await createAuthority('broker', validity);
  const server = createTlsServer({ cert, key, maxVersion: 'TLSv1.2' }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const failed = once(server, 'tlsClientError');
  const client = new MqttClient(
    { clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
    { ...mqttClientDefaults, url: `mqtts://127.0.0.1:${address.port}` },
  );
  await client.start();
  const [error] = await failed;
  expect(error).toMatchObject({ code: 'ERR_SSL_UNSUPPORTED_PROTOCOL' });
  await client.stop();
  server.close();
  await once(server, 'close');
});

test('what keeps a connection from coming is warned of once for each cause, and its return is said once', async () => {
  const clock = new ImpatientClock();
  const { log, records } = recordedLog();
  const port = await freePort();
  const url = `mqtt://127.0.0.1:${port}`;
  const client = new MqttClient(
    { clock, random: new SystemRandom(), log },
    { ...mqttClientDefaults, url },
  );
  await client.start();
  await eventually(() => clock.delaysMs.length > 10, { timeoutMs: 10_000 });
  const cause = `connect ECONNREFUSED 127.0.0.1:${port}`;
  expect(records).toMatchObject([{ event: 'mqtt-not-connected', address: url, cause }]);
  expect(client.failure).toBe(cause);
  await expect(client.publish('a', new Uint8Array(), 0)).rejects.toThrow(cause);

  const broker = new EmbeddedBroker({ log }, { ...embeddedBrokerDefaults, port });
  await broker.start();
  await eventually(() => client.isConnected, { timeoutMs: 10_000 });
  expect(client.failure).toBeUndefined();
  expect(records.slice(1)).toMatchObject([{ event: 'mqtt-connected', address: url }]);
  await client.stop();
  await broker.stop();
});

test('causes that alternate fill no log', () => {
  const { log, records } = recordedLog();
  const clock = new ManualClock(0);
  const trouble = new ConnectionTrouble({ clock, log }, {});
  for (let count = 0; count < 1_000; count += 1) trouble.failed(`cause ${count % 2}`);
  expect(records.length).toBe(20);
});
