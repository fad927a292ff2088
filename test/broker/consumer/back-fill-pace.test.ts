import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { consumerDefaults } from '../../../broker/consumer/consumer-options.ts';
import { Consumer } from '../../../broker/consumer/consumer.ts';
import { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import type { EncodedFrame } from '../../../common/wire/frame.ts';
import { eventually } from '../../support/eventually.ts';
import { Origin } from '../../support/origin.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { dataStream, rowRecord } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog };
const creditBytes = 20_000;
const frameCount = 200;

/** Takes frames, and has stored none of them before it is told. */
class HeldSink extends RecordingSink {
  readonly #held: (() => void)[] = [];
  #isHolding = true;

  override async store(frames: readonly EncodedFrame[]): Promise<void> {
    await super.store(frames);
    if (!this.#isHolding) return;
    await new Promise<void>((resolve) => {
      this.#held.push(resolve);
    });
  }

  release(): void {
    this.#isHolding = false;
    for (const resolve of this.#held.splice(0)) resolve();
  }

  get bytes(): number {
    return this.frames.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
}

describe('Back-fill', () => {
  let directory: ReturnType<typeof temporaryDirectory>;
  let broker: EmbeddedBroker;
  beforeEach(async () => {
    directory = temporaryDirectory();
    broker = new EmbeddedBroker(deps);
    await broker.start();
  });
  afterEach(async () => {
    await broker.stop();
    directory[Symbol.dispose]();
  });

  test('goes on while frames are being stored, until a window of them waits for the sink', async () => {
    const stream = dataStream('vm-1');
    const origin = new Origin(broker, join(directory.path, 'log.db'));
    await origin.producer.start();
    const epoch = origin.openEpoch(stream);
    const row = rowRecord('f', 1, ['x'.repeat(1_000)]);
    for (let index = 1; index < frameCount; index += 1) origin.append(stream, [row]);
    const sink = new HeldSink();
    const consumer = new Consumer(
      { ...deps, transport: broker, sink },
      {
        ...consumerDefaults,
        relation: 'reader',
        storedBy: 'final-reader',
        creditBytes,
        // Asking anew would bring more as well.
        queryTimeoutMs: 60_000,
      },
    );
    await consumer.start();
    try {
      await eventually(() => sink.bytes > creditBytes, { timeoutMs: 10_000 });
      expect(sink.bytes).toBeLessThan(3 * creditBytes);
      sink.release();
      await eventually(() => sink.seqs(epoch).length === frameCount, { timeoutMs: 10_000 });
    } finally {
      sink.release();
      await consumer.stop();
      await origin.close();
    }
  });
});
