import assert from 'node:assert';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../../broker/mqtt/mqtt-client.ts';
import { neighbourListenerDefaults } from '../../../broker/mqtt/neighbour-listener.ts';
import type { FileTlsIdentity } from '../../../common/identity/file-tls-identity.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';
import { Federation } from '../../support/federation.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { CountingLog } from '../counting-log.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';
import { recordedPackets } from '../recorded-packets.ts';

const timeoutMs = 10_000;
const subscribing = 0x82;

/** Bytes of whoever reaches the local listener, which asks nobody who it is. */
export const localMqtt: FuzzTarget = {
  name: 'local-mqtt',
  dictionary: ['MQTT', 'MQIsdp', 'n/p-c/down/live', '$SYS/#', '#', '+/+'],
  start: () => startBroker('local'),
};

/** Bytes of a neighbour with a valid certificate, behind the handshake; and of anybody, in its place. */
export const neighbourMqtt: FuzzTarget = {
  name: 'neighbour-mqtt',
  dictionary: ['MQTT', 'n/p-c/up/control', 'n/p-c/down/live', 'n/other/down/live', '$SYS/#', '#'],
  start: () => startBroker('neighbour'),
};

async function startBroker(listener: 'local' | 'neighbour'): Promise<RunningFuzzTarget> {
  const federation = new Federation();
  const counting = new CountingLog();
  const p = await makeSite(federation.parent, 'site-p', { listen: ['127.0.0.1:8883'] });
  const c = await makeSite(federation.parent, 'site-c');
  await makeNeighbours('p-c', p, c);
  const producer = await federation.identity(p);
  const consumer = await federation.identity(c);
  const broker = new EmbeddedBroker(
    { log: counting.log },
    {
      ...embeddedBrokerDefaults,
      neighbours: {
        ...neighbourListenerDefaults,
        host: '127.0.0.1',
        port: 0,
        identity: producer,
        roleOf: () => 'consumer',
      },
    },
  );
  await broker.start();
  federation.onClose(() => broker.stop());
  const strayTopics: string[] = [];
  await broker.subscribe('#', 1, (topic) => {
    const isOurs = /^(?:n\/p-c\/up\/|n\/sound\/|\$SYS\/)/.test(topic);
    if (!isOurs && listener === 'neighbour') strayTopics.push(topic);
  });
  const sound = await soundClient(broker, federation);
  const neighbourClient = await federation.client(consumer, 'p-c', broker.neighbourUrl);
  await eventually(() => neighbourClient.isConnected, { timeoutMs });
  const packets = await recordedPackets(portOf(broker.url), 'n/p-c/down/live', 'n/p-c/up/control');
  strayTopics.length = 0;
  return {
    samples: [...packets, Buffer.concat(packets)],
    generate: storm,
    run: async (input) => {
      await sendTo(
        listener === 'local' ? openLocal(broker) : openNeighbour(broker, consumer, input),
        input,
      );
      assert.deepEqual(strayTopics, [], 'a neighbour keeps to its subtree');
    },
    checkStillWorks: async () => {
      await sound.exchange();
      await eventually(() => neighbourClient.isConnected, { timeoutMs });
      await neighbourClient.publish('n/p-c/up/control', new Uint8Array(1), 1);
      counting.check();
    },
    stop: () => federation.close(),
  };
}

/** A client of this site, which has to get what it publishes whatever others send. */
async function soundClient(
  broker: EmbeddedBroker,
  federation: Federation,
): Promise<{ readonly exchange: () => Promise<void> }> {
  const client = new MqttClient(
    { clock: new SystemClock(), random: new SystemRandom(), log: new CountingLog().log },
    { ...mqttClientDefaults, url: broker.url },
  );
  await client.start();
  federation.onClose(() => client.stop());
  await eventually(() => client.isConnected, { timeoutMs });
  let received = 0;
  await client.subscribe('n/sound/x', 1, () => {
    received += 1;
  });
  return {
    exchange: async () => {
      await eventually(() => client.isConnected, { timeoutMs });
      const before = received;
      await client.publish('n/sound/x', new Uint8Array(1), 1);
      await eventually(() => received > before, { timeoutMs, pollMs: 1 });
    },
  };
}

function portOf(url: string): number {
  return Number(new URL(url).port);
}

function openLocal(broker: EmbeddedBroker): Socket {
  return connect(portOf(broker.url), '127.0.0.1');
}

/** One in eight inputs comes before the handshake, in the place of it. */
function openNeighbour(
  broker: EmbeddedBroker,
  identity: FileTlsIdentity,
  input: Uint8Array,
): Socket {
  const port = portOf(broker.neighbourUrl);
  if (((input[0] ?? 0) & 7) === 7) return connect(port, '127.0.0.1');
  const { cert, key } = identity.material();
  return connectTls({ host: '127.0.0.1', port, cert, key, rejectUnauthorized: false });
}

/** Sends everything and our end; the broker ends its side, at once or when it has read all. */
async function sendTo(socket: Socket, input: Uint8Array): Promise<void> {
  socket.on('error', () => {});
  socket.resume();
  const closed = new Promise((resolve) => {
    socket.once('close', resolve);
  });
  socket.end(input);
  const isDone = await Promise.race([
    closed.then(() => true),
    once(AbortSignal.timeout(timeoutMs), 'abort').then(() => false),
  ]);
  socket.destroy();
  assert(isDone, 'the broker ends the connection');
}

/** A connection and hundreds of subscriptions. */
function storm(random: FuzzRandom): Uint8Array {
  const connectPacket = Buffer.from('101000044d5154540402003c000474657374', 'hex');
  const filters = Array.from({ length: random.below(500) }, (_, index) => {
    const filter = Buffer.from(random.pick(['n/p-c/down/', '#/', '+/', `x${index}/`]) + index);
    const body = Buffer.concat([
      Buffer.from([0, index & 0xff, filter.length >>> 8, filter.length]),
      filter,
      Buffer.from([1]),
    ]);
    return Buffer.concat([Buffer.from([subscribing, body.length]), body]);
  });
  return Buffer.concat([connectPacket, ...filters]);
}
