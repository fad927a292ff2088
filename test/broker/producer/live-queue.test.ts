import { describe, expect, test } from 'vitest';

import { LiveQueue } from '../../../broker/producer/live-queue.ts';
import { StageCounters } from '../../../common/runtime/stage-counters.ts';
import { decodeFrameBatch } from '../../../common/wire/frame-batch.ts';

/** Takes one message at a time, when the test says so. */
class SteppedTransport {
  readonly sent: string[][] = [];
  #release: () => void = () => {};

  publish(_topic: string, payload: Uint8Array): Promise<void> {
    const batch = decodeFrameBatch(payload);
    if (!batch.ok) throw new Error(batch.rule);
    this.sent.push(batch.frames.map((bytes) => Buffer.from(bytes).toString()));
    return new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  async step(): Promise<void> {
    this.#release();
    await Promise.resolve();
    await Promise.resolve();
  }
}

const frame = (name: string): Uint8Array => Buffer.from(name.padEnd(10, '.'));
const named = (name: string): string => name.padEnd(10, '.');

function newQueue(batchBytesMax: number, liveQueueBytesMax: number) {
  const transport = new SteppedTransport();
  const counters = new StageCounters();
  const queue = new LiveQueue(transport, 'live', { batchBytesMax, liveQueueBytesMax }, counters);
  return { transport, counters, queue };
}

describe('LiveQueue', () => {
  test('a frame that finds the transport free goes alone; those that come meanwhile share the next message', async () => {
    const { transport, counters, queue } = newQueue(1_000, 1_000);
    for (const name of ['a1', 'a2', 'a3']) {
      queue.push('a', frame(name));
      queue.flush();
    }
    await transport.step();
    expect(transport.sent).toEqual([[named('a1')], [named('a2'), named('a3')]]);
    await transport.step();
    expect(counters.forwarded).toBe(3);
  });

  test('VMs take turns: one that floods delays and drops its own frames only', async () => {
    const { transport, counters, queue } = newQueue(20, 100);
    for (let index = 1; index <= 50; index += 1) queue.push('flood', frame(`f${index}`));
    queue.push('modest', frame('m1'));
    queue.push('modest', frame('m2'));
    queue.flush();
    for (let message = 0; message < 10; message += 1) await transport.step();
    const sent = transport.sent.flat();
    // Ten frames fit: of the flood the newest eight, in order; the other VM's are the second and the fourth.
    expect(sent).toEqual(
      ['f43', 'm1', 'f44', 'm2', 'f45', 'f46', 'f47', 'f48', 'f49', 'f50'].map(named),
    );
    expect(counters.dropped).toBe(42);
    expect(counters.forwarded).toBe(10);
  });

  test('a frame larger than the queue goes all the same', async () => {
    const { transport, queue } = newQueue(5, 5);
    queue.push('a', frame('large'));
    queue.flush();
    await transport.step();
    expect(transport.sent).toEqual([[named('large')]]);
  });
});
