import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  consumerDefaults,
  type ConsumerOptions,
} from '../../../broker/consumer/consumer-options.ts';
import { Consumer } from '../../../broker/consumer/consumer.ts';
import { LogRetention } from '../../../broker/log/log-retention.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../../broker/mqtt/mqtt-client.ts';
import type { MqttTransport } from '../../../broker/mqtt/mqtt-transport.ts';
import type { FrameInspector } from '../../../broker/ports.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import { encodeFrame, frameHash } from '../../../common/wire/frame-codec.ts';
import type { Epoch } from '../../../common/wire/frame.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { FaultyTransport } from '../../support/faulty-transport.ts';
import { Origin } from '../../support/origin.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { chainedFrames, dataStream, rowRecord } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const stream = dataStream('vm1');
const clock = new SystemClock();
const random = new SystemRandom();

let cleanUp: (() => Promise<void> | void)[];
let directory: string;
let broker: EmbeddedBroker;
let port: number;

beforeEach(async () => {
  cleanUp = [];
  const temporary = temporaryDirectory();
  cleanUp.push(() => {
    temporary[Symbol.dispose]();
  });
  directory = temporary.path;
  port = await freePort();
  broker = await startBroker();
});

afterEach(async () => {
  for (const stop of cleanUp.toReversed()) await stop();
});

async function startBroker(): Promise<EmbeddedBroker> {
  const started = new EmbeddedBroker({ log: silentLog }, { ...embeddedBrokerDefaults, port });
  await started.start();
  cleanUp.push(() => started.stop());
  return started;
}

async function startOrigin(
  transport: MqttTransport = broker,
  ...rest: [
    options?: ConstructorParameters<typeof Origin>[2],
    allows?: ConstructorParameters<typeof Origin>[3],
  ]
): Promise<Origin> {
  const origin = new Origin(transport, join(directory, 'log.db'), ...rest);
  await origin.producer.start();
  cleanUp.push(async () => {
    if (origin.database.open) await origin.close();
  });
  return origin;
}

async function startClient(): Promise<MqttClient> {
  const client = new MqttClient(
    { clock, random, log: silentLog },
    {
      ...mqttClientDefaults,
      url: `mqtt://127.0.0.1:${port}`,
      reconnect: { initialMs: 10, maxMs: 100, attemptsMax: Infinity },
    },
  );
  await client.start();
  cleanUp.push(() => client.stop());
  return client;
}

async function startConsumer(
  sink: RecordingSink,
  transport: MqttTransport,
  options: Partial<ConsumerOptions> = {},
  inspector?: FrameInspector,
): Promise<Consumer> {
  const consumer = new Consumer(
    {
      transport,
      sink,
      clock,
      random,
      log: silentLog,
      ...(inspector === undefined ? {} : { inspector }),
    },
    {
      ...consumerDefaults,
      relation: 'reader',
      storedBy: 'final-reader',
      checkIntervalMs: 20,
      queryTimeoutMs: 200,
      reportIntervalMs: 5,
      silenceMsMin: 300,
      ...options,
    },
  );
  await consumer.start();
  cleanUp.push(() => consumer.stop());
  return consumer;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      resolve();
    });
  });
}

function oneTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

function sorted(seqs: readonly number[]): number[] {
  return seqs.toSorted((left, right) => left - right);
}

/** The seqs of an epoch that arrived, ascending, once there are at least `count`. */
async function arrived(sink: RecordingSink, nonce: string, count: number): Promise<number[]> {
  const seqs = (): number[] => sorted(sink.seqs({ number: 0, nonce }));
  await eventually(() => seqs().length >= count, { timeoutMs: 15_000 });
  return seqs();
}

describe('Consumer and Producer', () => {
  test('a consumer that starts late asks for the range it lacks, and live frames follow', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    for (let index = 0; index < 300; index += 1) origin.append(stream);
    const sink = new RecordingSink();
    await startConsumer(sink, await startClient());
    expect(await arrived(sink, epoch.nonce, 301)).toEqual(oneTo(301));
    origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 302)).toEqual(oneTo(302));
  });

  test('under loss, duplicates and reordering the exact set arrives, nothing twice', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    let state = 42;
    const seeded = (): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 32;
    };
    const faulty = new FaultyTransport(await startClient(), {
      loss: 0.2,
      duplicate: 0.2,
      reorder: 0.2,
      random: seeded,
    });
    const sink = new RecordingSink();
    const consumer = await startConsumer(sink, faulty);
    for (let index = 0; index < 1_000; index += 1) {
      origin.append(stream, [rowRecord('f', index, [index])]);
      if (index % 10 === 0) await nextTurn();
    }
    expect(await arrived(sink, epoch.nonce, 1_001)).toEqual(oneTo(1_001));
    expect(consumer.counters.dropped).toBeGreaterThan(0);
  });

  test('a lost last frame is noticed by the announced head', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    const faulty = new FaultyTransport(await startClient(), {
      loss: 0,
      duplicate: 0,
      reorder: 0,
      random: () => 0.5,
    });
    await startConsumer(sink, faulty);
    expect(await arrived(sink, epoch.nonce, 1)).toEqual(oneTo(1));
    faulty.faults = { loss: 1, duplicate: 0, reorder: 0, random: () => 0.5 };
    origin.append(stream);
    await eventually(() => origin.producer.counters.forwarded >= 1, { timeoutMs: 5_000 });
    faulty.faults = undefined;
    expect(await arrived(sink, epoch.nonce, 2)).toEqual(oneTo(2));
  });

  test('goes live, and learns the end of a range, though frames flow in the same turn', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    // Behind the producer's own handler, so that a frame follows each of its answers at once.
    await broker.subscribe('n/reader/up/control', 1, () => {
      origin.append(stream);
    });
    const sink = new RecordingSink();
    // Neither a time-out nor silence may help.
    const patient = { queryTimeoutMs: 60_000, silenceMsMin: 60_000 };
    const consumer = await startConsumer(sink, await startClient(), patient);
    await eventually(() => consumer.isLive, { timeoutMs: 5_000 });
    await eventually(() => sink.seqs(epoch).length > 2, { timeoutMs: 5_000 });
    expect(sink.seqs(epoch)).toContain(1);
  });

  test('an answer to a subscription that is lost is noticed, though frames flow', async () => {
    const origin = await startOrigin();
    origin.openEpoch(stream);
    const transport = new FaultyTransport(await startClient());
    let lostCount = 0;
    transport.loses = (_topic, payload) => {
      const isLost = lostCount < 1 && Buffer.from(payload).includes('"subscribed"');
      if (isLost) lostCount += 1;
      return isLost;
    };
    const flow = clock.every(20, () => {
      origin.append(stream);
    });
    cleanUp.push(() => {
      flow();
    });
    const consumer = await startConsumer(new RecordingSink(), transport);
    await eventually(() => consumer.isLive, { timeoutMs: 5_000 });
    expect(lostCount).toBe(1);
  });

  test('goes on after the broker’s restart with all that was committed meanwhile', async () => {
    const producerSide = await startClient();
    const origin = await startOrigin(producerSide);
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    await startConsumer(sink, await startClient());
    for (let index = 0; index < 50; index += 1) origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 51)).toEqual(oneTo(51));
    await broker.stop();
    for (let index = 0; index < 50; index += 1) origin.append(stream);
    broker = await startBroker();
    for (let index = 0; index < 50; index += 1) origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 151)).toEqual(oneTo(151));
  });

  test('goes on after the producer’s restart behind a broker that stayed', async () => {
    const first = await startOrigin(await startClient());
    const epoch = first.openEpoch(stream);
    const sink = new RecordingSink();
    await startConsumer(sink, await startClient());
    for (let index = 0; index < 20; index += 1) first.append(stream);
    expect(await arrived(sink, epoch.nonce, 21)).toEqual(oneTo(21));
    await first.close();
    const second = await startOrigin(await startClient());
    for (let index = 0; index < 20; index += 1) second.append(stream);
    expect(await arrived(sink, epoch.nonce, 41)).toEqual(oneTo(41));
  });

  test('a consumer that restarts takes nothing twice and misses nothing', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    const first = await startConsumer(sink, await startClient());
    for (let index = 0; index < 20; index += 1) origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 21)).toEqual(oneTo(21));
    await first.stop();
    for (let index = 0; index < 20; index += 1) origin.append(stream);
    await startConsumer(sink, await startClient());
    expect(await arrived(sink, epoch.nonce, 41)).toEqual(oneTo(41));
  });

  test('frames that could not be stored are asked for again', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    const consumer = await startConsumer(sink, await startClient());
    expect(await arrived(sink, epoch.nonce, 1)).toEqual(oneTo(1));
    sink.failNext = true;
    for (let index = 0; index < 10; index += 1) origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 11)).toEqual(oneTo(11));
    expect(consumer.counters.failed).toBeGreaterThan(0);
  });

  test('stored watermarks travel upstream and become the durable cursor', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    await startConsumer(new RecordingSink(), await startClient());
    for (let index = 0; index < 30; index += 1) origin.append(stream);
    const stored = (): number => origin.cursors.throughSeq('reader', 'final-reader', stream, epoch);
    await eventually(() => stored() === 31, { timeoutMs: 10_000 });
    expect(origin.cursors.subscribers()).toEqual(['reader']);
    expect(origin.cursors.throughSeq('reader', 'next-hop', stream, epoch)).toBe(0);
  });

  test('unsubscribing ends the durable cursor', async () => {
    const origin = await startOrigin();
    const consumer = await startConsumer(new RecordingSink(), await startClient());
    await eventually(() => consumer.isLive, { timeoutMs: 10_000 });
    consumer.unsubscribe();
    await eventually(() => origin.cursors.subscribers().length === 0, { timeoutMs: 10_000 });
    expect(origin.cursors.subscribers()).toEqual([]);
  });

  test('a stream that flows is not asked for frames that are on their way', async () => {
    const origin = await startOrigin(broker, { announceIntervalMs: 5 });
    let queryCount = 0;
    await broker.subscribe('n/reader/up/control', 1, (_topic, payload) => {
      if (Buffer.from(payload).includes('"query"')) queryCount += 1;
    });
    const sink = new RecordingSink();
    const consumer = await startConsumer(sink, await startClient());
    await eventually(() => consumer.isLive, { timeoutMs: 10_000 });
    const epoch = origin.openEpoch(stream);
    await eventually(() => sink.seqs(epoch).length === 1, { timeoutMs: 10_000 });
    for (let turn = 0; turn < 200; turn += 1) {
      for (let index = 0; index < 5; index += 1) origin.append(stream);
      await nextTurn();
    }
    await eventually(() => sink.seqs(epoch).length === 1_001, { timeoutMs: 10_000 });
    expect(queryCount).toBe(0);
    expect(consumer.counters.dropped).toBe(0);
  });

  test('keeps a bounded number of epochs in memory and takes each frame once all the same', async () => {
    const origin = await startOrigin();
    const sink = new RecordingSink();
    const first = await startConsumer(sink, await startClient(), { epochsMax: 4 });
    const epochs: Epoch[] = [];
    for (let count = 0; count < 12; count += 1) {
      const epoch = origin.openEpoch(stream);
      for (let index = 0; index < 9; index += 1) origin.append(stream);
      expect(await arrived(sink, epoch.nonce, 10)).toEqual(oneTo(10));
      epochs.push(epoch);
    }
    // Every epoch is announced again to another session.
    await first.stop();
    await startConsumer(sink, await startClient(), { epochsMax: 4 });
    const epoch = origin.openEpoch(stream);
    expect(await arrived(sink, epoch.nonce, 1)).toContain(1);
    for (const { nonce } of epochs) expect(await arrived(sink, nonce, 10)).toEqual(oneTo(10));
  });

  test('what fell off the log is a durable lost record at the reader, never silence', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    for (let index = 0; index < 99; index += 1) origin.append(stream);
    new LogRetention(
      { database: origin.database, clock, cursors: origin.cursors },
      { ageMaxMs: 1e9, bytesMax: 2_000 },
    ).prune();
    const sink = new RecordingSink();
    await startConsumer(sink, await startClient());
    await eventually(() => sink.seqs(epoch).includes(100) && sink.lost.length === 1, {
      timeoutMs: 10_000,
    });
    const [lost] = sink.lost;
    expect(lost).toMatchObject({ fromSeq: 1, reason: 'log-full' });
    expect(sorted(sink.seqs(epoch))).toEqual(oneTo(100).filter((seq) => seq > lost!.throughSeq));
    const watermark = (): number =>
      origin.cursors.throughSeq('reader', 'final-reader', stream, epoch);
    await eventually(() => watermark() === 100, { timeoutMs: 10_000 });
  });

  test('back-fill is paced by credit in bytes, and live frames overtake it', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const row = rowRecord('f', 1, ['x'.repeat(2_000)]);
    for (let index = 0; index < 2_000; index += 1) origin.append(stream, [row]);
    const sink = new RecordingSink();
    await startConsumer(sink, await startClient(), { creditBytes: 20_000 });
    await eventually(() => sink.frames.length > 50, { timeoutMs: 10_000 });
    const live = origin.append(stream).header.seq;
    await eventually(() => sink.seqs(epoch).includes(live), { timeoutMs: 10_000 });
    expect(sink.frames.length).toBeLessThan(1_900);
    expect(await arrived(sink, epoch.nonce, live)).toEqual(oneTo(live));
  });

  test('the producer authorizes streams: others are neither forwarded nor answered', async () => {
    const hidden = dataStream('hidden');
    const origin = await startOrigin(broker, {}, (_relation, { vm }) => vm !== hidden.vm);
    const secret = origin.openEpoch(hidden);
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    await startConsumer(sink, await startClient());
    expect(await arrived(sink, epoch.nonce, 1)).toEqual(oneTo(1));
    origin.append(hidden);
    origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 2)).toEqual(oneTo(2));
    expect(sink.seqs(secret)).toEqual([]);
  });

  test('a frame that contradicts its neighbours’ hashes is refused, and the true one is fetched', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    const consumer = await startConsumer(sink, await startClient());
    expect(await arrived(sink, epoch.nonce, 1)).toEqual(oneTo(1));
    const header = {
      stream,
      epoch,
      seq: 2,
      previousHash: frameHash(Buffer.from('forged')),
      producedAtUs: 1,
    };
    await broker.publish(
      'n/reader/down/live',
      encodeFrameBatch([encodeFrame({ header, records: [] })]),
      0,
    );
    await eventually(() => consumer.counters.failed > 0, { timeoutMs: 5_000 });
    const genuine = origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 2)).toEqual(oneTo(2));
    expect(Uint8Array.from(sink.frames.at(-1)!.bytes)).toEqual(Uint8Array.from(genuine.bytes));
  });

  test('a frame that the inspector refuses leaves no trace, and the true one is taken in its place', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    const repeated: number[] = [];
    const inspector: FrameInspector = {
      inspect: (frame) => (frame.header.producedAtUs === 1 ? 'refuse' : 'take'),
      repeated: (frame) => void repeated.push(frame.header.seq),
    };
    const consumer = await startConsumer(sink, await startClient(), {}, inspector);
    expect(await arrived(sink, epoch.nonce, 1)).toEqual(oneTo(1));
    const forged = (seq: number) => {
      const previousHash = frameHash(Buffer.from('forged'));
      const header = { stream, epoch, seq, previousHash, producedAtUs: 1 };
      return encodeFrame({ header, records: [] });
    };
    // One in the place of the next frame, and one far ahead, which must not look like a gap.
    await broker.publish('n/reader/down/live', encodeFrameBatch([forged(2), forged(1_000_000)]), 0);
    await eventually(() => consumer.counters.failed === 2, { timeoutMs: 5_000 });
    const genuine = origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 2)).toEqual(oneTo(2));
    expect(Uint8Array.from(sink.frames.at(-1)!.bytes)).toEqual(Uint8Array.from(genuine.bytes));
    expect(sink.lost).toEqual([]);
    await broker.publish('n/reader/down/live', encodeFrameBatch([forged(2)]), 0);
    await eventually(() => repeated.includes(2), { timeoutMs: 5_000 });
    expect(sink.seqs(epoch)).toEqual(oneTo(2));
  });

  test('noise on every topic is counted and changes nothing', async () => {
    const origin = await startOrigin();
    const epoch = origin.openEpoch(stream);
    const sink = new RecordingSink();
    const consumer = await startConsumer(sink, await startClient());
    expect(await arrived(sink, epoch.nonce, 1)).toEqual(oneTo(1));
    for (const topic of ['up/control', 'down/control', 'down/live', 'down/range/x']) {
      await broker.publish(`n/reader/${topic}`, Buffer.from('{"noise"'), 0);
    }
    origin.append(stream);
    expect(await arrived(sink, epoch.nonce, 2)).toEqual(oneTo(2));
    expect(consumer.counters.failed).toBe(3);
    expect(origin.producer.counters.failed).toBe(1);
  });

  test('sends a single frame at once and alone, and lets those that come meanwhile share a message', async () => {
    const sizes: number[] = [];
    let release: (() => void) | undefined;
    const slow: MqttTransport = {
      name: 'slow',
      isConnected: true,
      start: () => Promise.resolve(),
      stop: () => Promise.resolve(),
      publish: (topic, payload) => {
        if (!topic.endsWith('live')) return Promise.resolve();
        sizes.push(payload.length);
        return new Promise((resolve) => {
          release = resolve;
        });
      },
      subscribe: (_filter, _qos, handler) => {
        handler('', Buffer.from('{"v":1,"session":"s","kind":"subscribe","streams":"all"}'));
        return Promise.resolve(() => {});
      },
      onConnection: () => () => {},
    };
    const origin = await startOrigin(slow);
    const frames = chainedFrames(stream, 4);
    origin.producer.forward(frames.slice(0, 1));
    expect(sizes).toHaveLength(1);
    for (const frame of frames.slice(1)) origin.producer.forward([frame]);
    expect(sizes).toHaveLength(1);
    release?.();
    await eventually(() => sizes.length === 2, { timeoutMs: 5_000 });
    expect(sizes[1]).toBeGreaterThan(sizes[0]! * 2);
  });
});
