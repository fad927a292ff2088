import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { Consumer } from '../../../broker/consumer/consumer.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../../broker/mqtt/embedded-broker.ts';
import { relationTopics } from '../../../broker/mqtt/topics.ts';
import { byteQuotaDefaults } from '../../../broker/quota/byte-quotas.ts';
import type { UpstreamQuotas } from '../../../broker/relay/relay-options.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { Origin } from '../../support/origin.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { quickClient, quickConsumer, RelaySite } from '../../support/relay-site.ts';
import { chainedFrames, dataStream, rowRecord } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const patience = { timeoutMs: 20_000 };
const flood = dataStream('flood');
const modest = dataStream('modest');
const filler = 'x'.repeat(2_000);

let cleanUp: (() => Promise<void> | void)[];
let directory: string;
let originPort: number;
let relayPort: number;

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
});

afterEach(async () => {
  for (const stop of cleanUp.toReversed()) await stop();
});

async function startBroker(port: number): Promise<EmbeddedBroker> {
  const broker = new EmbeddedBroker({ log: silentLog }, { ...embeddedBrokerDefaults, port });
  await broker.start();
  cleanUp.push(() => broker.stop());
  return broker;
}

async function startOrigin(): Promise<Origin> {
  const broker = await startBroker(originPort);
  const origin = new Origin(broker, join(directory, 'origin.db'), { relations: ['a'] });
  await origin.producer.start();
  cleanUp.push(() => origin.close());
  return origin;
}

async function startRelay(quotas: Partial<UpstreamQuotas> = {}): Promise<RelaySite> {
  const site = await RelaySite.start({
    directory: join(directory, 'relay'),
    port: relayPort,
    upstream: [
      {
        relation: 'a',
        port: originPort,
        quotas: { ...byteQuotaDefaults, vmsMax: 1_000, ...quotas },
      },
    ],
    downstream: [{ relation: 'b' }],
  });
  cleanUp.push(() => site[Symbol.asyncDispose]());
  return site;
}

async function startReader(): Promise<RecordingSink> {
  const sink = new RecordingSink();
  const transport = quickClient(relayPort);
  const consumer = new Consumer(
    { transport, sink, clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
    { ...quickConsumer, relation: 'b', storedBy: 'final-reader' },
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

const seqsOf = (sink: RecordingSink, vm: string): number[] =>
  sink.frames.filter(({ header }) => header.stream.vm === vm).map(({ header }) => header.seq);

const ascending = (seqs: readonly number[]): number[] =>
  seqs.toSorted((left, right) => left - right);

const oneTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

describe('Relay under a flood', () => {
  test('what is over a VM’s quota comes later, all of it, nothing twice; another VM’s frames go on at once', async () => {
    const origin = await startOrigin();
    const burstBytes = 200_000;
    const relay = await startRelay({ vm: { bytesPerSecond: 100_000, burstBytes } });
    const reader = await startReader();
    origin.openEpoch(flood);
    origin.openEpoch(modest);
    // Four bursts: the last of them can't be here before six seconds have gone.
    const count = (4 * burstBytes) / 2_000;
    for (let index = 1; index < count; index += 1) {
      origin.append(flood, [rowRecord('users', 1_000_000, [filler])]);
    }
    for (let value = 2; value <= 20; value += 1) {
      origin.append(modest, [rowRecord('users', 1_000_000, [value])]);
      await eventually(() => seqsOf(reader, 'modest').length === value, patience);
    }
    expect(seqsOf(reader, 'flood').length).toBeLessThan(count);
    await eventually(() => seqsOf(reader, 'flood').length === count, patience);
    expect(ascending(seqsOf(reader, 'flood'))).toEqual(oneTo(count));
    expect(seqsOf(reader, 'modest')).toEqual(oneTo(20));
    expect(reader.lost).toEqual([]);
    expect(relay.relay.delays('a')?.delayedFrames).toBeGreaterThan(count / 2);
    expect(relay.relay.delays('a', 'modest')?.delayedFrames).toBe(0);
    expect(relay.relay.delays('b')).toBeNull();
  });

  test('while it floods on, the flooder gets its rate, not less', async () => {
    const origin = await startOrigin();
    const bytesPerSecond = 400_000;
    await startRelay({ vm: { bytesPerSecond, burstBytes: 100_000 } });
    const reader = await startReader();
    origin.openEpoch(flood);
    const beganMs = performance.now();
    const goal = 400;
    const state = { isFlooding: true };
    const flooding = (async () => {
      const clock = new SystemClock();
      while (state.isFlooding) {
        for (let index = 0; index < 20; index += 1) {
          origin.append(flood, [rowRecord('users', 1_000_000, [filler])]);
        }
        await clock.sleep(10);
      }
    })();
    await eventually(() => seqsOf(reader, 'flood').length >= goal, patience);
    state.isFlooding = false;
    await flooding;
    const elapsedSeconds = (performance.now() - beganMs) / 1_000;
    expect(elapsedSeconds).toBeGreaterThan((goal * 2_000 - 100_000) / bytesPerSecond);
  });

  test('frames that were not asked for count, on whatever topic they come', async () => {
    const broker = await startBroker(originPort);
    const relay = await startRelay({ vm: { bytesPerSecond: 1, burstBytes: 10_000 } });
    await eventually(() => relay.relay.stages()['consumer/a'] !== undefined, patience);
    const frames = chainedFrames(flood, 500);
    const topics = relationTopics('a');
    await eventually(async () => {
      for (const { bytes } of frames) {
        await broker.publish(topics.range('invented'), encodeFrameBatch([bytes]), 0);
      }
      return (relay.relay.delays('a')?.delayedFrames ?? 0) > 0;
    }, patience);
    await eventually(() => relay.relay.logBytes() > 0, patience);
    expect(relay.relay.logBytes()).toBeLessThanOrEqual(10_000);
  });

  test('a neighbour names so many VMs and no more', async () => {
    const origin = await startOrigin();
    const relay = await startRelay({ vmsMax: 5 });
    for (let vm = 1; vm <= 5; vm += 1) origin.openEpoch(dataStream(`vm${vm}`));
    const vms = (): string[] => relay.relay.log.epochs().map(({ stream }) => stream.vm);
    await eventually(() => vms().length === 5, patience);
    for (let vm = 6; vm <= 30; vm += 1) origin.openEpoch(dataStream(`vm${vm}`));
    origin.append(dataStream('vm1'));
    await eventually(() => relay.relay.log.epochs().some(({ lastSeq }) => lastSeq === 2), patience);
    const failed = (): number => relay.relay.stages()['consumer/a']?.failed ?? 0;
    await eventually(() => failed() >= 25, patience);
    expect(vms().toSorted()).toEqual(['vm1', 'vm2', 'vm3', 'vm4', 'vm5']);
    const known = relay.database.prepare('SELECT count(DISTINCT vm) FROM stream_log_epochs');
    expect(known.pluck().get()).toBe(5);
  });

  test('a burst of VMs beyond the bound, each with frames at once, is no way around it', async () => {
    const broker = await startBroker(originPort);
    const relay = await startRelay({ vmsMax: 5 });
    const batch = encodeFrameBatch(
      Array.from({ length: 200 }, (_, vm) => chainedFrames(dataStream(`vm${vm}`), 3)).flatMap(
        (frames) => frames.map(({ bytes }) => bytes),
      ),
    );
    await eventually(async () => {
      await broker.publish(relationTopics('a').live, batch, 0);
      return (relay.relay.stages()['consumer/a']?.failed ?? 0) > 1_000;
    }, patience);
    await eventually(() => relay.relay.log.epochs().length > 0, patience);
    expect(relay.relay.log.epochs()).toHaveLength(5);
  });
});
