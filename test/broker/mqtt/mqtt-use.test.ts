import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { afterEach, describe, expect, test } from 'vitest';

import { consumerDefaults } from '../../../broker/consumer/consumer-options.ts';
import { Consumer } from '../../../broker/consumer/consumer.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../../broker/mqtt/mqtt-client.ts';
import { relationTopics } from '../../../broker/mqtt/topics.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { Origin } from '../../support/origin.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { dataStream } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

/** One MQTT control packet (MQTT 3.1.1, section 2.2): `flags` are the low four bits of its first byte. */
interface Packet {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

const types = { connect: 1, publish: 3, subscribe: 8 } as const;

/** The packets of one direction of a connection, from its first byte on. */
function packetsIn(bytes: Buffer): Packet[] {
  const packets: Packet[] = [];
  let at = 0;
  while (at < bytes.length) {
    const first = bytes.readUInt8(at);
    let lengthBytes = 0;
    let length = 0;
    let digit = 128;
    while (digit >= 128) {
      lengthBytes += 1;
      if (at + lengthBytes >= bytes.length) return packets;
      digit = bytes.readUInt8(at + lengthBytes);
      length += (digit % 128) * 128 ** (lengthBytes - 1);
    }
    const begin = at + 1 + lengthBytes;
    if (begin + length > bytes.length) return packets;
    packets.push({
      type: first >> 4,
      flags: first % 16,
      body: bytes.subarray(begin, begin + length),
    });
    at = begin + length;
  }
  return packets;
}

/** A string with its length before it (section 1.5.3). */
function text(body: Buffer, at: number): string {
  return body.toString('utf8', at + 2, at + 2 + body.readUInt16BE(at));
}

const qosOf = ({ flags }: Packet): number => (flags >> 1) % 4;

const cleanUp: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const stop of cleanUp.splice(0).toReversed()) await stop();
});

describe('what we use of MQTT', () => {
  test('3.1.1, QoS 0/1, clean sessions, no retained state, and topics of n/<relation>/{down,up} only', async () => {
    const directory = temporaryDirectory();
    cleanUp.push(() => {
      directory[Symbol.dispose]();
    });
    const clock = new SystemClock();
    const random = new SystemRandom();
    const port = await freePort();
    const broker = new EmbeddedBroker({ log: silentLog }, { ...embeddedBrokerDefaults, port });
    await broker.start();
    cleanUp.push(() => broker.stop());
    const sent: Buffer[][] = [];
    const proxy = createServer((socket) => {
      const chunks: Buffer[] = [];
      sent.push(chunks);
      const behind = connect(port, '127.0.0.1');
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
      });
      pipeline(socket, behind, socket).catch(() => {});
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    cleanUp.push(() => {
      proxy.close();
    });
    const { port: proxyPort } = proxy.address() as AddressInfo;
    const startClient = async (): Promise<MqttClient> => {
      const url = `mqtt://127.0.0.1:${proxyPort}`;
      const client = new MqttClient(
        { clock, random, log: silentLog },
        { ...mqttClientDefaults, url },
      );
      await client.start();
      cleanUp.push(() => client.stop());
      return client;
    };
    const origin = new Origin(await startClient(), join(directory.path, 'log.db'));
    await origin.producer.start();
    cleanUp.push(() => origin.close());
    const stream = dataStream('vm1');
    const epoch = origin.openEpoch(stream);
    for (let index = 0; index < 50; index += 1) origin.append(stream);
    const sink = new RecordingSink();
    const consumer = new Consumer(
      { transport: await startClient(), sink, clock, random, log: silentLog },
      { ...consumerDefaults, relation: 'reader', storedBy: 'final-reader' },
    );
    await consumer.start();
    cleanUp.push(() => consumer.stop());
    await eventually(() => sink.seqs(epoch).length === 51, { timeoutMs: 15_000 });
    origin.append(stream);
    await eventually(
      () => origin.cursors.throughSeq('reader', 'final-reader', stream, epoch) === 52,
      {
        timeoutMs: 15_000,
      },
    );

    const packets = sent.flatMap((chunks) => packetsIn(Buffer.concat(chunks)));
    const connects = packets.filter(({ type }) => type === types.connect);
    expect(connects).toHaveLength(2);
    for (const { body } of connects) {
      expect([text(body, 0), body.readUInt8(6)]).toEqual(['MQTT', 4]);
      // Bit 1 is the clean session, bit 2 a will, of which we have none.
      expect(body.readUInt8(7) & 0b110).toBe(0b010);
    }
    const published = packets.filter(({ type }) => type === types.publish);
    expect(new Set(published.map(({ flags }) => flags % 2))).toEqual(new Set([0]));
    expect(new Set(published.map(qosOf))).toEqual(new Set([0, 1]));
    const subscribes = packets.filter(({ type }) => type === types.subscribe);
    expect(Math.max(...subscribes.map(({ body }) => body.readUInt8(body.length - 1)))).toBe(1);
    const topics = [
      ...published.map(({ body }) => text(body, 0)),
      ...subscribes.map(({ body }) => text(body, 2)),
    ];
    expect(topics).toContain('n/reader/down/live');
    expect(
      topics.filter(
        (topic) => !/^n\/reader\/(?:down|up)(?:\/[A-Za-z0-9_-]+)*(?:\/\+)?$/.test(topic),
      ),
    ).toEqual([]);
  });

  test('topic levels contain only [A-Za-z0-9_-]; the topic of an answer is derived from a checked id', () => {
    expect(relationTopics('site-1_a').range('r-1')).toBe('n/site-1_a/down/range/r-1');
    for (const relation of ['a.b', 'a/b', 'a+', '#', '', 'ä', 'x'.repeat(65)]) {
      expect(() => relationTopics(relation)).toThrow('letters, digits, _ and -');
      expect(() => relationTopics('a').range(relation)).toThrow('letters, digits');
    }
    expect(relationTopics('a').requestOf('n/b/down/range/r')).toBeUndefined();
    expect(relationTopics('a').requestOf('n/a/down/range/r.1')).toBeUndefined();
  });
});

describe('the local listener', () => {
  test('a packet that announces more than the largest frame ends its connection before it is collected', async () => {
    const broker = new EmbeddedBroker({ log: silentLog });
    await broker.start();
    cleanUp.push(() => broker.stop());
    const socket = connect(Number(new URL(broker.url).port), '127.0.0.1');
    const closed = once(socket, 'close');
    socket.on('error', () => {});
    socket.resume();
    // CONNECT, and then PUBLISH with a remaining length of 256 MiB - 1 (section 2.2.3).
    socket.write(Buffer.from('100d00044d5154540402003c000178', 'hex'));
    socket.write(Buffer.from('30ffffff7f', 'hex'));
    await closed;
    expect(broker.refusals.count('packet-too-large')).toBe(1);
  });
});
