import { afterEach, expect, test } from 'vitest';

import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import {
  MqttClient,
  mqttClientDefaults,
  type NeighbourConnection,
} from '../../../broker/mqtt/mqtt-client.ts';
import type { MqttTransport } from '../../../broker/mqtt/mqtt-transport.ts';
import {
  neighbourListenerDefaults,
  type NeighbourListenerOptions,
} from '../../../broker/mqtt/neighbour-listener.ts';
import type { FileTlsIdentity } from '../../../common/identity/file-tls-identity.ts';
import { buildSiteIdentity } from '../../../common/identity/site-identity.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';
import {
  freePort,
  prepareExternalBroker,
  startExternalBroker,
} from '../../support/external-broker.ts';
import { describeUnless, type Obstacle } from '../../support/requirements.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

/** A broker, and how the two sides of a relation reach it: `side` the producer, `peer` the consumer, started. */
interface Setting {
  readonly side: MqttTransport;
  readonly peer: () => Promise<MqttTransport>;
  readonly stopBroker: () => Promise<void>;
  readonly restartBroker: () => Promise<void>;
}

type StartSetting = () => Promise<Setting>;

const cleanUp: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of cleanUp.splice(0).toReversed()) await stop();
});

function client(url: string, neighbour?: NeighbourConnection): MqttClient {
  const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog };
  const transport = new MqttClient(deps, {
    ...mqttClientDefaults,
    url,
    ...(neighbour === undefined ? {} : { neighbour }),
    reconnect: { initialMs: 10, maxMs: 100, attemptsMax: Number.POSITIVE_INFINITY },
  });
  cleanUp.push(() => transport.stop());
  return transport;
}

async function embedded(port: number): Promise<EmbeddedBroker> {
  const broker = new EmbeddedBroker({ log: silentLog }, { ...embeddedBrokerDefaults, port });
  await broker.start();
  cleanUp.push(() => broker.stop());
  return broker;
}

const embeddedSide: StartSetting = async () => {
  const broker = await embedded(await freePort());
  const { url } = broker;
  return {
    side: broker,
    peer: () => started(client(url)),
    stopBroker: () => broker.stop(),
    restartBroker: () => broker.start(),
  };
};

const clientOfEmbedded: StartSetting = async () => {
  const port = await freePort();
  let broker = await embedded(port);
  const side = client(broker.url);
  await side.start();
  return {
    side,
    peer: () => started(client(broker.url)),
    stopBroker: () => broker.stop(),
    restartBroker: async () => {
      broker = await embedded(port);
    },
  };
};

/** The producer's own broker with both listeners, the consumer dialling in over mutual TLS. */
const tlsWithLocalSide: StartSetting = async () => {
  const { producer, consumer } = await neighbours();
  const listener = { ...tlsListener(producer), port: await freePort() };
  const broker = new EmbeddedBroker(
    { log: silentLog },
    { ...embeddedBrokerDefaults, neighbours: listener },
  );
  await broker.start();
  cleanUp.push(() => broker.stop());
  const { neighbourUrl } = broker;
  return {
    side: broker,
    peer: () =>
      started(client(neighbourUrl, { identity: consumer, relation: 'a', packetBytesMax })),
    stopBroker: () => broker.stop(),
    restartBroker: () => broker.start(),
  };
};

/** As behind a firewall: the producer dials the consumer's broker, whose own side is in the process. */
const tlsFromProducer: StartSetting = async () => {
  const { producer, consumer } = await neighbours();
  const listener = { ...tlsListener(consumer), port: await freePort() };
  const broker = new EmbeddedBroker(
    { log: silentLog },
    { ...embeddedBrokerDefaults, listensLocally: false, neighbours: listener },
  );
  await broker.start();
  cleanUp.push(() => broker.stop());
  const side = client(broker.neighbourUrl, { identity: producer, relation: 'a', packetBytesMax });
  await side.start();
  return {
    side,
    peer: () => Promise.resolve(broker),
    stopBroker: () => broker.stop(),
    restartBroker: () => broker.start(),
  };
};

const { packetBytesMax } = neighbourListenerDefaults;

function tlsListener(identity: FileTlsIdentity): NeighbourListenerOptions {
  return {
    ...neighbourListenerDefaults,
    host: '127.0.0.1',
    identity,
    roleOf: (relation) =>
      identity.document.neighbours.find((each) => each.relation === relation)?.role,
  };
}

/** Two sites with real authorities that trust each other. */
async function neighbours(): Promise<{ producer: FileTlsIdentity; consumer: FileTlsIdentity }> {
  const parent = temporaryDirectory();
  cleanUp.push(() => Promise.resolve(parent[Symbol.dispose]()));
  const directories = await Promise.all(
    ['producer', 'consumer'].map((name) => makeSite(parent.path, name)),
  );
  const [producer = '', consumer = ''] = directories;
  await makeNeighbours('a', producer, consumer);
  const deps = { clock: new SystemClock(), log: silentLog };
  const identities = directories.map((directory) => {
    const { identity, service } = buildSiteIdentity(deps, directory);
    cleanUp.push(() => service.stop());
    return { identity, service };
  });
  for (const { service } of identities) await service.start();
  const [first, second] = identities;
  if (first === undefined || second === undefined) throw new Error('two sites');
  return { producer: first.identity, consumer: second.identity };
}

function clientOfExternal(kind: 'mosquitto' | 'nats-server', program: string): StartSetting {
  return async () => {
    const port = await freePort();
    let broker = await startExternalBroker(kind, program, port);
    cleanUp.push(() => broker.stop());
    const side = client(broker.url);
    await side.start();
    return {
      side,
      peer: () => started(client(broker.url)),
      stopBroker: () => broker.stop(),
      restartBroker: async () => {
        broker = await startExternalBroker(kind, program, port);
      },
    };
  };
}

async function started(transport: MqttTransport): Promise<MqttTransport> {
  await transport.start();
  return transport;
}

async function connected(
  start: StartSetting,
): Promise<Omit<Setting, 'peer'> & { readonly peer: MqttTransport }> {
  const setting = await start();
  const peer = await setting.peer();
  await eventually(() => setting.side.isConnected && peer.isConnected, { timeoutMs: 10_000 });
  return { ...setting, peer };
}

contract('embedded broker, inside', embeddedSide);
contract('client of the embedded broker', clientOfEmbedded);
contract('embedded broker, inside, its peer over mutual TLS', tlsWithLocalSide);
contract('client over mutual TLS of an embedded broker that has nothing else', tlsFromProducer);
for (const kind of ['mosquitto', 'nats-server'] as const) {
  const prepared = prepareExternalBroker(kind);
  const program = prepared.ok ? prepared.program : '';
  const obstacle = prepared.ok ? undefined : prepared.reason;
  contract(`client of ${kind}`, clientOfExternal(kind, program), obstacle);
}

function contract(title: string, start: StartSetting, obstacle?: Obstacle): void {
  describeUnless(obstacle, `MqttTransport: ${title}`, () => {
    test.each([0, 1] as const)('carries bytes unchanged both ways with QoS %i', async (qos) => {
      const { side, peer } = await connected(start);
      const payload = Uint8Array.from({ length: 256 }, (_, index) => index);
      const received: [string, Uint8Array][] = [];
      const take = (topic: string, bytes: Uint8Array): void => {
        received.push([topic, Uint8Array.from(bytes)]);
      };
      await side.subscribe('n/a/up/+', qos, take);
      await peer.subscribe('n/a/down/#', qos, take);
      await side.publish('n/a/down/range/r_1', payload, qos);
      await eventually(() => received.length === 1, { timeoutMs: 5_000 });
      await peer.publish('n/a/up/control', new Uint8Array(), qos);
      await eventually(() => received.length === 2, { timeoutMs: 5_000 });
      expect(received).toEqual([
        ['n/a/down/range/r_1', payload],
        ['n/a/up/control', new Uint8Array()],
      ]);
    });

    test('keeps the order of one topic and delivers only what a filter matches', async () => {
      const { side, peer } = await connected(start);
      const received: number[] = [];
      await peer.subscribe('n/a/down/live', 0, (_topic, bytes) => {
        received.push(Buffer.from(bytes).readUInt32LE());
      });
      for (let index = 0; index < 500; index += 1) {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32LE(index);
        await side.publish(index % 2 === 0 ? 'n/a/down/live' : 'n/a/down/other', bytes, 0);
      }
      await eventually(() => received.length === 250, { timeoutMs: 10_000 });
      expect(received).toEqual(Array.from({ length: 250 }, (_, index) => index * 2));
    });

    test('a message with QoS 1 is not lost by one with QoS 0 that follows it at once, nor the other way round', async () => {
      const { side, peer } = await connected(start);
      const received = { control: 0, live: 0 };
      await peer.subscribe('n/a/down/control', 1, () => {
        received.control += 1;
      });
      await peer.subscribe('n/a/down/live', 0, () => {
        received.live += 1;
      });
      const count = 50;
      for (let index = 0; index < count; index += 1) {
        await Promise.all([
          side.publish('n/a/down/control', Uint8Array.of(index), 1),
          side.publish('n/a/down/live', Uint8Array.of(index), 0),
        ]);
      }
      // Behind everything else on both topics.
      await side.publish('n/a/down/live', Uint8Array.of(count), 0);
      await side.publish('n/a/down/control', Uint8Array.of(count), 1);
      await eventually(() => received.control > count && received.live > count, {
        timeoutMs: 5_000,
      }).catch(() => {
        // Told by what is missing.
      });
      expect(received).toEqual({ control: count + 1, live: count + 1 });
    });

    test('carries a message of a megabyte', async () => {
      const { side, peer } = await connected(start);
      const sizes: number[] = [];
      await peer.subscribe('n/a/down/live', 0, (_topic, bytes) => {
        sizes.push(bytes.length);
      });
      await side.publish('n/a/down/live', new Uint8Array(1_000_000), 0);
      await eventually(() => sizes.length === 1, { timeoutMs: 10_000 });
      expect(sizes).toEqual([1_000_000]);
    });

    test('ends a subscription that is cancelled', async () => {
      const { side, peer } = await connected(start);
      const received: string[] = [];
      const cancel = await side.subscribe('n/a/up/one', 1, (topic) => {
        received.push(topic);
      });
      await side.subscribe('n/a/up/two', 1, (topic) => {
        received.push(topic);
      });
      cancel();
      const isOver = await eventually(
        async () => {
          received.length = 0;
          await peer.publish('n/a/up/one', new Uint8Array(), 1);
          await peer.publish('n/a/up/two', new Uint8Array(), 1);
          await eventually(() => received.includes('n/a/up/two'), { timeoutMs: 2_000 });
          return !received.includes('n/a/up/one');
        },
        { timeoutMs: 5_000 },
      );
      expect(isOver).toBe(true);
    });

    test('a client reconnects after the broker’s restart, with its subscriptions in force', async () => {
      const { side, peer, stopBroker, restartBroker } = await connected(start);
      const received: string[] = [];
      await peer.subscribe('n/a/down/live', 0, (topic) => {
        received.push(topic);
      });
      await stopBroker();
      await eventually(() => !side.isConnected && !peer.isConnected, { timeoutMs: 10_000 });
      await expect(side.publish('n/a/down/live', new Uint8Array(), 0)).rejects.toMatchObject({
        code: 'mqtt-not-connected',
        retryable: true,
      });
      await restartBroker();
      await eventually(() => side.isConnected && peer.isConnected, { timeoutMs: 10_000 });
      await side.publish('n/a/down/live', new Uint8Array(), 0);
      await eventually(() => received.length === 1, { timeoutMs: 5_000 });
    });
  });
}
