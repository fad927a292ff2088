import { expect, test } from 'vitest';

import { consumerDefaults } from '../../../broker/consumer/consumer-options.ts';
import { Consumer } from '../../../broker/consumer/consumer.ts';
import { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { relationTopics } from '../../../broker/mqtt/topics.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import {
  controlMessageVersion,
  decodeUpstream,
  encodeControl,
  type UpstreamMessage,
} from '../../../common/wire/control-message.ts';
import { encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import { eventually } from '../../support/eventually.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { chainedFrames, dataStream, sampleEpoch } from '../../support/sample-frames.ts';

const timeout = { timeoutMs: 15_000 };

test('a range whose frames are all here already gets its credit back', async () => {
  const broker = new EmbeddedBroker({ log: silentLog });
  await broker.start();
  const topics = relationTopics('reader');
  const heard: UpstreamMessage[] = [];
  await broker.subscribe(topics.upControl, 1, (_topic, payload) => {
    const decoded = decodeUpstream(payload);
    if (decoded.ok) heard.push(decoded.message);
  });
  const said = <Kind extends UpstreamMessage['kind']>(kind: Kind) =>
    heard.filter((message) => message.kind === kind) as Extract<UpstreamMessage, { kind: Kind }>[];
  const some = <Kind extends UpstreamMessage['kind']>(kind: Kind) =>
    eventually(() => said(kind).length > 0 && said(kind), timeout);
  const sink = new RecordingSink();
  const consumer = new Consumer(
    {
      transport: broker,
      sink,
      clock: new SystemClock(),
      random: new SystemRandom(),
      log: silentLog,
    },
    { ...consumerDefaults, relation: 'reader', storedBy: 'final-reader' },
  );
  await consumer.start();
  const [subscribe] = await some('subscribe');
  const base = { v: controlMessageVersion, session: subscribe?.session ?? '' } as const;
  const tell = (message: Parameters<typeof encodeControl>[0]) =>
    broker.publish(topics.downControl, encodeControl(message), 1);
  const stream = dataStream('vm1');
  const frames = chainedFrames(stream, 3);
  const batch = encodeFrameBatch(frames.map(({ bytes }) => bytes));
  await tell({ ...base, kind: 'subscribed', instance: 'a', announceIntervalMs: 1_000 });
  const heads = [{ stream, epoch: sampleEpoch, throughSeq: 3 }];
  await tell({ ...base, kind: 'heads', instance: 'a', heads });
  const [query] = await some('query');
  if (query === undefined) throw new Error('no query');
  // Live frames overtake the answer, which then brings nothing new.
  await broker.publish(topics.live, batch, 0);
  await eventually(() => sink.frames.length === 3, timeout);
  let sentBytes = 0;
  while (sentBytes < query.creditBytes) {
    await broker.publish(topics.range(query.request), batch, 0);
    sentBytes += batch.length;
    if (said('credit').length > 0) break;
  }
  const [credit] = await some('credit');
  expect(credit?.request).toBe(query.request);
  expect(credit?.bytes).toBeGreaterThan(0);
  expect(sink.frames.length).toBe(3);
  await consumer.stop();
  await broker.stop();
});
