import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { Consumer } from '../../../broker/consumer/consumer.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { relationTopics } from '../../../broker/mqtt/topics.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import {
  controlMessageVersion,
  encodeControl,
  type UpstreamMessage,
} from '../../../common/wire/control-message.ts';
import type { EncodedFrame, Epoch } from '../../../common/wire/frame.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { Origin } from '../../support/origin.ts';
import { mqttPackets, writeAll } from '../../support/raw-mqtt.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { quickClient, quickConsumer, RelaySite } from '../../support/relay-site.ts';
import { dataStream, rowRecord } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const patience = { timeoutMs: 20_000 };
const stream = dataStream('vm1');
const slow = relationTopics('slow');
const base = { v: controlMessageVersion, session: 'slow' } as const;
const filler = 'x'.repeat(20_000);
/** More than the kernel's buffers and the queue of live frames hold together. */
const frameCount = 1_500;
/** One message of live frames, eight of queries, control messages; stated in broker/DESIGN.md. */
const bufferedBytesMax = 4 * 1_024 * 1_024;
/** Stated: another neighbour's latency stays in the milliseconds; the rest is for a loaded machine. */
const latencyMsMax = 10_000;
/** Rounds of ten frames that arrive while thousands of messages of somebody else are read; without pacing there is one. */
const roundsMin = 5;

let cleanUp: (() => Promise<void> | void)[];
let directory: string;
let originPort: number;
let relayPort: number;
let origin: Origin;
let relay: RelaySite;

beforeEach(async () => {
  const temporary = temporaryDirectory();
  cleanUp = [
    () => {
      temporary[Symbol.dispose]();
    },
  ];
  directory = temporary.path;
  originPort = await freePort();
  relayPort = await freePort();
  const broker = new EmbeddedBroker(
    { log: silentLog },
    { ...embeddedBrokerDefaults, port: originPort },
  );
  await broker.start();
  cleanUp.push(() => broker.stop());
  origin = new Origin(broker, join(directory, 'origin.db'), { relations: ['a'] });
  await origin.producer.start();
  cleanUp.push(() => origin.close());
  relay = await RelaySite.start({
    directory: join(directory, 'relay'),
    port: relayPort,
    upstream: [{ relation: 'a', port: originPort }],
    downstream: [{ relation: 'b' }, { relation: 'slow' }],
  });
  cleanUp.push(() => relay[Symbol.asyncDispose]());
});

afterEach(async () => {
  for (const stop of cleanUp.toReversed()) await stop();
});

class TimedSink extends RecordingSink {
  readonly latenciesMs: number[] = [];

  override store(frames: readonly EncodedFrame[]): Promise<void> {
    const nowUs = new SystemClock().wallUs();
    for (const { header } of frames) this.latenciesMs.push((nowUs - header.producedAtUs) / 1_000);
    return super.store(frames);
  }
}

async function startReader(relation: string): Promise<TimedSink> {
  const sink = new TimedSink();
  const transport = quickClient(relayPort);
  const consumer = new Consumer(
    { transport, sink, clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
    { ...quickConsumer, relation, storedBy: 'final-reader' },
  );
  await transport.start();
  await consumer.start();
  cleanUp.push(async () => {
    await consumer.stop();
    await transport.stop();
  });
  await eventually(() => consumer.isLive, patience);
  return sink;
}

const refused = (): number => relay.relay.stages()['producer']?.failed ?? 0;

const say = (message: UpstreamMessage): Buffer =>
  mqttPackets.publish(slow.upControl, encodeControl(message));

/** Subscribes to everything that its relation has, and never reads a byte of it. */
async function startSlowReader(): Promise<Socket> {
  const socket = connect({ port: relayPort, host: '127.0.0.1' });
  socket.on('error', () => {});
  cleanUp.push(() => {
    socket.destroy();
  });
  socket.write(mqttPackets.connect('slow'));
  socket.write(mqttPackets.subscribe(['n/slow/down/#']));
  await eventually(() => {
    socket.write(say({ ...base, kind: 'subscribe', streams: 'all' }));
    return relay.relay.isLive('slow');
  }, patience);
  return socket;
}

/** Appends `count` frames, ten at a time when those before are at the reader; returns the most bytes that were buffered. */
async function appendAll(reader: RecordingSink, count: number): Promise<number> {
  let bufferedBytes = 0;
  for (let index = 0; index < count; index += 10) {
    const frames = Array.from({ length: 10 }, () =>
      origin.append(stream, [rowRecord('users', 1_000_000, [filler])]),
    );
    const newest = frames.at(-1)?.header.seq ?? 0;
    await eventually(() => reader.frames.length === newest, patience);
    bufferedBytes = Math.max(bufferedBytes, relay.broker.bufferedBytes);
  }
  return bufferedBytes;
}

const oneTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

function printLatencies(what: string, { latenciesMs }: TimedSink): number {
  const sorted = latenciesMs.toSorted((left, right) => left - right);
  const at = (ratio: number): number => sorted[Math.floor(ratio * (sorted.length - 1))] ?? 0;
  process.stderr.write(
    `${what}: latency p50 ${at(0.5).toFixed(1)}, p99 ${at(0.99).toFixed(1)} ms\n`,
  );
  return at(0.99);
}

describe('a slow consumer', () => {
  test('that does not read costs the relay bounded memory, delays nobody else, and loses nothing', async () => {
    const reader = await startReader('b');
    const epoch: Epoch = origin.openEpoch(stream);
    const socket = await startSlowReader();
    const bufferedBytes = await appendAll(reader, frameCount);
    expect(reader.seqs(epoch)).toEqual(oneTo(frameCount + 1));
    expect(printLatencies('beside a reader that does not read', reader)).toBeLessThan(latencyMsMax);
    // The kernel took what it can; then one message waits, and the oldest of the rest was left to queries.
    expect(bufferedBytes).toBeGreaterThan(0);
    expect(bufferedBytes).toBeLessThan(bufferedBytesMax);
    expect(relay.relay.stages()['producer']?.dropped).toBeGreaterThan(0);
    socket.destroy();
    const late = await startReader('slow');
    await eventually(() => late.frames.length === frameCount + 1, patience);
    expect(late.seqs(epoch).toSorted((left, right) => left - right)).toEqual(oneTo(frameCount + 1));
    expect(late.lost).toEqual([]);
  });

  test('that asks without end and does not read the answers costs bounded memory, and delays nobody else', async () => {
    const reader = await startReader('b');
    const epoch = origin.openEpoch(stream);
    await appendAll(reader, 20);
    const socket = await startSlowReader();
    const range = { fromSeq: 1, throughSeq: 1_000_000 };
    const queryCount = 20_000;
    const queries = function* (): Iterable<Buffer> {
      for (let request = 0; request < queryCount; request += 1) {
        yield say({
          ...base,
          kind: 'query',
          request: `r${request}`,
          stream,
          epoch,
          range,
          creditBytes: 1_000_000,
        });
      }
    };
    const asking = writeAll(socket, queries());
    await eventually(() => refused() > 0, patience);
    const bufferedBytes: number[] = [];
    reader.latenciesMs.length = 0;
    while (refused() < queryCount / 2) {
      bufferedBytes.push(await appendAll(reader, 10));
    }
    await asking;
    expect(printLatencies('beside a reader that asks without end', reader)).toBeLessThan(
      latencyMsMax,
    );
    expect(bufferedBytes.length).toBeGreaterThanOrEqual(roundsMin);
    expect(Math.max(...bufferedBytes)).toBeLessThan(bufferedBytesMax);
  });
});
