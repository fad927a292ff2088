import { afterEach, expect, test } from 'vitest';

import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../../broker/mqtt/mqtt-client.ts';
import type { MqttTransport } from '../../../broker/mqtt/mqtt-transport.ts';
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

/** A broker, and how one side of a relation reaches it. */
interface Setting {
  readonly side: MqttTransport;
  readonly url: string;
  readonly stopBroker: () => Promise<void>;
  readonly restartBroker: () => Promise<void>;
}

type StartSetting = () => Promise<Setting>;

const cleanUp: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of cleanUp.splice(0).toReversed()) await stop();
});

function client(url: string): MqttClient {
  const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog };
  const transport = new MqttClient(deps, {
    ...mqttClientDefaults,
    url,
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
    url,
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
    url: broker.url,
    stopBroker: () => broker.stop(),
    restartBroker: async () => {
      broker = await embedded(port);
    },
  };
};

function clientOfExternal(kind: 'mosquitto' | 'nats-server', program: string): StartSetting {
  return async () => {
    const port = await freePort();
    let broker = await startExternalBroker(kind, program, port);
    cleanUp.push(() => broker.stop());
    const side = client(broker.url);
    await side.start();
    return {
      side,
      url: broker.url,
      stopBroker: () => broker.stop(),
      restartBroker: async () => {
        broker = await startExternalBroker(kind, program, port);
      },
    };
  };
}

async function connected(start: StartSetting): Promise<Setting & { readonly peer: MqttTransport }> {
  const setting = await start();
  const peer = client(setting.url);
  await peer.start();
  await eventually(() => setting.side.isConnected && peer.isConnected, { timeoutMs: 10_000 });
  return { ...setting, peer };
}

contract('embedded broker, inside', embeddedSide);
contract('client of the embedded broker', clientOfEmbedded);
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
      await side.subscribe('n/rel-1/up/+', qos, take);
      await peer.subscribe('n/rel-1/down/#', qos, take);
      await side.publish('n/rel-1/down/range/r_1', payload, qos);
      await eventually(() => received.length === 1, { timeoutMs: 5_000 });
      await peer.publish('n/rel-1/up/control', new Uint8Array(), qos);
      await eventually(() => received.length === 2, { timeoutMs: 5_000 });
      expect(received).toEqual([
        ['n/rel-1/down/range/r_1', payload],
        ['n/rel-1/up/control', new Uint8Array()],
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
        await side.publish(index % 2 === 0 ? 'n/a/down/live' : 'n/b/down/live', bytes, 0);
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
