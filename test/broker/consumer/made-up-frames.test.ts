import { expect, onTestFinished, test } from 'vitest';

import { consumerDefaults } from '../../../broker/consumer/consumer-options.ts';
import { Consumer } from '../../../broker/consumer/consumer.ts';
import { KnownEpochs } from '../../../broker/consumer/known-epochs.ts';
import { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import type { EncodedFrame, Epoch } from '../../../common/wire/frame.ts';
import { eventually } from '../../support/eventually.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { chainedFrames, dataStream, sampleEpoch } from '../../support/sample-frames.ts';

const stream = dataStream('vm1');
const timeoutMs = 10_000;

function epochOf(index: number): Epoch {
  return { ...sampleEpoch, number: index };
}

test('a producer that sends every second frame makes a consumer keep a bounded number of gaps in mind, and loses nothing by it', async () => {
  const broker = new EmbeddedBroker({ log: silentLog });
  await broker.start();
  onTestFinished(() => broker.stop());
  const sink = new RecordingSink();
  const consumer = new Consumer(
    {
      transport: broker,
      sink,
      clock: new SystemClock(),
      random: new SystemRandom(),
      log: silentLog,
    },
    { ...consumerDefaults, relation: 'a', storedBy: 'next-hop', runsPerEpochMax: 10 },
  );
  await consumer.start();
  onTestFinished(() => consumer.stop());
  const send = (frames: readonly EncodedFrame[]) =>
    broker.publish('n/a/down/live', encodeFrameBatch(frames.map(({ bytes }) => bytes)), 0);
  const frames = chainedFrames(stream, 200);
  await send(frames.filter(({ header }) => header.seq % 2 === 1));
  await eventually(() => consumer.counters.dropped === 90, { timeoutMs });
  await eventually(() => sink.frames.length === 10, { timeoutMs });
  await send(frames);
  await eventually(() => sink.frames.length === 200, { timeoutMs });
  expect(new Set(sink.seqs(sampleEpoch)).size).toBe(200);
});

test('an announced epoch finds its place by looking at few others, complete ones first', () => {
  const epochs = new KnownEpochs(new RecordingSink(), 100);
  for (let index = 0; index < 100; index += 1) {
    const state = epochs.of(stream, epochOf(index));
    // Nothing was ever announced of the others: they lack nothing.
    if (index !== 3 && index < 70) state.announce(9, 0);
  }
  const isKnown = (index: number) => epochs.known(stream, epochOf(index)) !== undefined;
  epochs.of(stream, epochOf(100));
  expect([isKnown(0), isKnown(3), isKnown(70)]).toEqual([true, false, true]);
  epochs.of(stream, epochOf(101));
  expect([isKnown(0), isKnown(70)]).toEqual([false, true]);
});
