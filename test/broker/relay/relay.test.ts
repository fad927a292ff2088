import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { Consumer } from '../../../broker/consumer/consumer.ts';
import { LogLosses } from '../../../broker/log/log-losses.ts';
import { LogRetention } from '../../../broker/log/log-retention.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import type { MqttTransport } from '../../../broker/mqtt/mqtt-transport.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { FaultyTransport } from '../../support/faulty-transport.ts';
import { Origin } from '../../support/origin.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import {
  everyStream,
  quickClient,
  quickConsumer,
  RelaySite,
  type RelaySiteOptions,
} from '../../support/relay-site.ts';
import { dataStream, rowRecord } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const stream = dataStream('vm1');
const patience = { timeoutMs: 15_000 };

let cleanUp: (() => Promise<void> | void)[];
let directory: string;

beforeEach(() => {
  const temporary = temporaryDirectory();
  cleanUp = [
    () => {
      temporary[Symbol.dispose]();
    },
  ];
  directory = temporary.path;
});

afterEach(async () => {
  for (const stop of cleanUp.toReversed()) await stop();
});

/** The site of the VM: a stream log, its producer, a broker. */
async function startOrigin(
  port: number,
  relations: readonly string[] = ['a'],
  allows?: ConstructorParameters<typeof Origin>[3],
): Promise<Origin> {
  const broker = new EmbeddedBroker({ log: silentLog }, { ...embeddedBrokerDefaults, port });
  await broker.start();
  cleanUp.push(() => broker.stop());
  const origin = new Origin(broker, join(directory, 'origin.db'), { relations }, allows);
  await origin.producer.start();
  cleanUp.push(() => origin.close());
  return origin;
}

async function startRelay(options: RelaySiteOptions): Promise<RelaySite> {
  const site = await RelaySite.start(options);
  cleanUp.push(() => site[Symbol.asyncDispose]());
  return site;
}

/** The primary site: a consumer that is the final reader. */
async function startReader(
  port: number,
  relation: string,
  sink = new RecordingSink(),
): Promise<RecordingSink> {
  const transport = quickClient(port);
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
  return sink;
}

function oneTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

const ascending = (seqs: readonly number[]): number[] =>
  seqs.toSorted((left, right) => left - right);

const vmsOf = (sink: RecordingSink): string[] =>
  sink.frames.map(({ header }) => header.stream.vm).toSorted();

describe('Relay', () => {
  let originPort: number;
  let port: number;
  const site = (): RelaySiteOptions => ({
    directory: join(directory, 'relay'),
    port,
    upstream: [{ relation: 'a', port: originPort }],
    downstream: [{ relation: 'b' }],
  });

  beforeEach(async () => {
    originPort = await freePort();
    port = await freePort();
  });

  test('hands on each frame byte for byte: relays never split, merge or renumber', async () => {
    const origin = await startOrigin(originPort);
    await startRelay(site());
    const reader = await startReader(port, 'b');
    const epoch = origin.openEpoch(stream);
    const sent = [1, 2, 3].map((value) =>
      origin.append(stream, [rowRecord('users', 1_000_000 * value, [value])]),
    );
    await eventually(() => reader.frames.length === 4, patience);
    expect(ascending(reader.seqs(epoch))).toEqual([1, 2, 3, 4]);
    for (const frame of sent) {
      const received = reader.frames.find(({ header }) => header.seq === frame.header.seq);
      expect(Buffer.compare(received?.bytes ?? new Uint8Array(), frame.bytes)).toBe(0);
    }
  });

  test('forwards at once, then stores, then acknowledges: a full disk delays no live frame, and acknowledges none', async () => {
    const origin = await startOrigin(originPort);
    const relay = await startRelay(site());
    const reader = await startReader(port, 'b');
    const epoch = origin.openEpoch(stream);
    await eventually(() => relay.relay.log.epochs()[0]?.lastSeq === 1, patience);
    const pages = Number(relay.database.pragma('page_count', { simple: true }));
    relay.database.pragma(`max_page_count = ${pages + 1}`);
    const count = 60;
    const filler = 'x'.repeat(2_000);
    for (let index = 1; index < count; index += 1) {
      origin.append(stream, [rowRecord('users', 1_000_000, [filler])]);
    }
    await eventually(() => new Set(reader.seqs(epoch)).size === count, patience);
    const acknowledged = (): number => origin.cursors.throughSeq('a', 'next-hop', stream, epoch);
    expect(acknowledged()).toBeLessThan(count);
    // With room again it heals by itself, and nothing came twice.
    relay.database.pragma('max_page_count = 1000000');
    await eventually(() => acknowledged() === count, patience);
    expect(ascending(reader.seqs(epoch))).toEqual(oneTo(count));
  });

  test('two watermarks travel upstream: stored by the next hop, stored by the final reader', async () => {
    const origin = await startOrigin(originPort);
    await startRelay(site());
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 20; index += 1) origin.append(stream);
    const watermark = (by: 'next-hop' | 'final-reader'): number =>
      origin.cursors.throughSeq('a', by, stream, epoch);
    await eventually(() => watermark('next-hop') === 20, patience);
    expect(watermark('final-reader')).toBe(0);
    await startReader(port, 'b');
    await eventually(() => watermark('final-reader') === 20, patience);
  });

  test('what the final reader stored while the source was away is told when it is back', async () => {
    const origin = await startOrigin(originPort);
    const first = await startRelay(site());
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 20; index += 1) origin.append(stream);
    await eventually(() => first.relay.log.epochs()[0]?.lastSeq === 20, patience);
    await first[Symbol.asyncDispose]();
    // The way upstream is closed, the one downstream is open.
    const alone = await startRelay({ ...site(), upstream: [] });
    const reader = await startReader(port, 'b');
    await eventually(() => reader.frames.length === 20, patience);
    await eventually(
      () =>
        alone.database
          .prepare(`SELECT 1 FROM stream_log_watermarks WHERE through_seq = 20`)
          .get() !== undefined,
      patience,
    );
    await alone[Symbol.asyncDispose]();
    expect(origin.cursors.throughSeq('a', 'final-reader', stream, epoch)).toBe(0);
    await startRelay(site());
    await eventually(
      () => origin.cursors.throughSeq('a', 'final-reader', stream, epoch) === 20,
      patience,
    );
  });

  test('an extra consumer has the frames too, and is not the final reader', async () => {
    const origin = await startOrigin(originPort);
    await startRelay({
      ...site(),
      downstream: [{ relation: 'b' }, { relation: 'extra', isStanding: false }],
    });
    const extra = await startReader(port, 'extra');
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 20; index += 1) origin.append(stream);
    await eventually(() => extra.frames.length === 20, patience);
    await eventually(
      () => origin.cursors.throughSeq('a', 'next-hop', stream, epoch) === 20,
      patience,
    );
    expect(origin.cursors.throughSeq('a', 'final-reader', stream, epoch)).toBe(0);
  });

  test('an extra consumer on demand gets nothing before it asked, then all that is there and what follows', async () => {
    const origin = await startOrigin(originPort);
    let hasAsked = false;
    await startRelay({
      ...site(),
      downstream: [
        { relation: 'b' },
        { relation: 'extra', isStanding: false, hasAskedFor: () => hasAsked },
      ],
    });
    const reader = await startReader(port, 'b');
    const extra = await startReader(port, 'extra');
    origin.openEpoch(stream);
    for (let index = 1; index < 20; index += 1) origin.append(stream);
    await eventually(() => reader.frames.length === 20, patience);
    expect(extra.frames).toEqual([]);
    hasAsked = true;
    await eventually(() => extra.frames.length === 20, patience);
    origin.append(stream);
    await eventually(() => extra.frames.length === 21, patience);
  });

  test('a relay that was away brings what it missed, nothing twice', async () => {
    const origin = await startOrigin(originPort);
    const before = await startRelay(site());
    const reader = await startReader(port, 'b');
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 50; index += 1) origin.append(stream);
    await eventually(() => reader.frames.length === 50, patience);
    await before[Symbol.asyncDispose]();
    for (let index = 0; index < 1_000; index += 1) origin.append(stream);
    await startRelay(site());
    await eventually(() => reader.frames.length >= 1_050, patience);
    expect(ascending(reader.seqs(epoch))).toEqual(oneTo(1_050));
  });

  test('the loss of a relay’s whole disk heals from upstream', async () => {
    const origin = await startOrigin(originPort);
    const before = await startRelay(site());
    const reader = await startReader(port, 'b');
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 100; index += 1) origin.append(stream);
    await eventually(() => reader.frames.length === 100, patience);
    await before[Symbol.asyncDispose]();
    rmSync(join(directory, 'relay'), { recursive: true });
    for (let index = 0; index < 100; index += 1) origin.append(stream);
    const after = await startRelay(site());
    await eventually(() => reader.frames.length >= 200, patience);
    expect(ascending(reader.seqs(epoch))).toEqual(oneTo(200));
    // The log is whole again: a second reader, from nothing, has all of it from the relay alone.
    await eventually(
      () =>
        after.relay.log.stored(stream).length === 1 &&
        after.relay.log.stored(stream)[0]?.throughSeq === 200,
      patience,
    );
    expect(after.relay.log.lostIn(stream, epoch, { fromSeq: 1, throughSeq: 200 })).toEqual([]);
  });

  test('what the source had to give up is a lost record at the reader, with its reason, through any relay', async () => {
    const origin = await startOrigin(originPort);
    const epoch = origin.openEpoch(stream);
    for (let index = 0; index < 99; index += 1) origin.append(stream);
    const { database, cursors } = origin;
    new LogRetention(
      { database, clock: new SystemClock(), cursors },
      { ageMaxMs: 1e9, bytesMax: 2_000 },
    ).prune();
    await startRelay(site());
    const reader = await startReader(port, 'b');
    await eventually(() => reader.lost.length === 1 && reader.seqs(epoch).includes(100), patience);
    const [lost] = reader.lost;
    expect(lost).toMatchObject({ fromSeq: 1, reason: 'log-full' });
    const kept = oneTo(100).filter((seq) => seq > (lost?.throughSeq ?? 0));
    await eventually(() => reader.frames.length === kept.length, patience);
    expect(ascending(reader.seqs(epoch))).toEqual(kept);
  });

  test('a loss that is declared later reaches a reader that does not ask', async () => {
    const origin = await startOrigin(originPort);
    await startRelay(site());
    const reader = await startReader(port, 'b');
    const epoch = origin.openEpoch(stream);
    await eventually(() => reader.seqs(epoch).length === 1, patience);
    // Committed, and lost, before anything was announced.
    const { database, cursors, producer } = origin;
    database.transaction(() => {
      for (let index = 0; index < 99; index += 1) origin.log.append(stream, []);
    })();
    const deps = { database, clock: new SystemClock() };
    const givenUp = new LogLosses(deps);
    const bounds = { ageMaxMs: 1e9, bytesMax: 2_000 };
    new LogRetention({ ...deps, cursors, givenUp }, bounds).prune();
    producer.declareLost(givenUp.take());
    await eventually(() => reader.lost.length > 0, patience);
    expect(reader.lost).toMatchObject([{ fromSeq: 2, reason: 'log-full', proof: null }]);
  });

  test('a loop is refused: what I already relay I take from nobody else', async () => {
    const origin = await startOrigin(originPort);
    const loopPort = await freePort();
    // a -> relay -> other -> relay: `other` brings back what the relay sent it.
    const relay = await startRelay({
      ...site(),
      upstream: [
        { relation: 'a', port: originPort },
        { relation: 'back', port: loopPort },
      ],
      downstream: [{ relation: 'b' }, { relation: 'onward' }],
    });
    await startRelay({
      directory: join(directory, 'other'),
      port: loopPort,
      upstream: [{ relation: 'onward', port }],
      downstream: [{ relation: 'back' }],
    });
    const reader = await startReader(port, 'b');
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 50; index += 1) origin.append(stream);
    await eventually(() => reader.frames.length >= 50, patience);
    const refused = (): number => relay.relay.stages()['consumer/back']?.failed ?? 0;
    await eventually(() => refused() > 0, patience);
    expect(ascending(reader.seqs(epoch))).toEqual(oneTo(50));
    expect(relay.relay.log.sourceOf(stream, epoch)).toBe('a');
    expect(relay.relay.stages()['consumer/back']).toMatchObject({ forwarded: 0, dropped: 0 });
  });

  test('a neighbour brings, and has, only the streams that it may', async () => {
    const origin = await startOrigin(originPort);
    const others = { vms: new Set(['vm2']), kinds: everyStream.kinds };
    const relay = await startRelay({
      ...site(),
      upstream: [
        { relation: 'a', port: originPort, may: { ...everyStream, vms: new Set(['vm1', 'vm2']) } },
      ],
      downstream: [{ relation: 'b' }, { relation: 'vm2-only', may: others }],
    });
    const all = await startReader(port, 'b');
    const some = await startReader(port, 'vm2-only');
    for (const vm of ['vm1', 'vm2', 'vm3']) origin.openEpoch(dataStream(vm));
    await eventually(() => all.frames.length === 2 && some.frames.length === 1, patience);
    await eventually(() => (relay.relay.stages()['consumer/a']?.failed ?? 0) > 0, patience);
    expect(vmsOf(all)).toEqual(['vm1', 'vm2']);
    expect(vmsOf(some)).toEqual(['vm2']);
    expect(relay.relay.log.epochs().map((known) => known.stream.vm)).toEqual(['vm1', 'vm2']);
  });

  test('two relays in a row, messages lost, repeated and reordered on each: the exact set arrives, nothing twice', async () => {
    const origin = await startOrigin(originPort);
    let seed = 7;
    const uniform = (): number => {
      seed = (seed * 16_807) % 2_147_483_647;
      return seed / 2_147_483_647;
    };
    const faulty: FaultyTransport[] = [];
    const wrap = (client: MqttTransport): FaultyTransport => {
      const faults = { loss: 0.1, duplicate: 0.1, reorder: 0.1, random: uniform };
      const transport = new FaultyTransport(client, faults);
      faulty.push(transport);
      return transport;
    };
    const secondPort = await freePort();
    await startRelay({
      ...site(),
      upstream: [{ relation: 'a', port: originPort, wrap }],
    });
    await startRelay({
      directory: join(directory, 'second'),
      port: secondPort,
      upstream: [{ relation: 'b', port, wrap }],
      downstream: [{ relation: 'c' }],
    });
    const reader = await startReader(secondPort, 'c');
    const epoch = origin.openEpoch(stream);
    for (let index = 1; index < 500; index += 1) {
      origin.append(stream);
      if (index % 10 === 0) await nextTurn();
    }
    await eventually(() => new Set(reader.seqs(epoch)).size === 500, { timeoutMs: 30_000 });
    expect(ascending(reader.seqs(epoch))).toEqual(oneTo(500));
    for (const transport of faulty) transport.faults = undefined;
    await eventually(
      () => origin.cursors.throughSeq('a', 'final-reader', stream, epoch) === 500,
      patience,
    );
  });
});
