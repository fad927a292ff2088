import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import { encodeFrameBatch } from '../../common/wire/frame-batch.ts';
import type { MqttTransport } from '../mqtt/mqtt-transport.ts';

export interface LiveQueueOptions {
  readonly batchBytesMax: number;
  /** Beyond it the oldest frames are dropped: the consumer sees the gap and asks for them. */
  readonly liveQueueBytesMax: number;
}

/**
 * Live frames on their way to one consumer. A frame that finds the transport free goes at once and alone; those that
 * come while a message is being written share the next one. So batching never waits for anything.
 */
export class LiveQueue {
  readonly #transport: MqttTransport;
  readonly #topic: string;
  readonly #options: LiveQueueOptions;
  readonly #counters: StageCounters;
  #frames: Uint8Array[] = [];
  #bytes = 0;
  #sendingCount = 0;
  #isSending = false;

  constructor(
    transport: MqttTransport,
    topic: string,
    options: LiveQueueOptions,
    counters: StageCounters,
  ) {
    this.#transport = transport;
    this.#topic = topic;
    this.#options = options;
    this.#counters = counters;
  }

  push(frame: Uint8Array): void {
    this.#frames.push(frame);
    this.#bytes += frame.length;
    while (this.#bytes > this.#options.liveQueueBytesMax && this.#frames.length > 1) {
      this.#bytes -= this.#frames.shift()?.length ?? 0;
      this.#counters.dropped += 1;
    }
  }

  flush(): void {
    if (this.#isSending) return;
    this.#isSending = true;
    this.#sendAll().catch(() => {
      // Without a connection nobody listens: whoever reconnects asks for what it lacks.
      this.#isSending = false;
      this.#counters.dropped += this.#sendingCount;
      this.clear();
    });
  }

  /** Drops what waits; a message on its way stays on it. */
  clear(): void {
    this.#counters.dropped += this.#frames.length;
    this.#frames = [];
    this.#bytes = 0;
  }

  async #sendAll(): Promise<void> {
    while (this.#frames.length > 0) {
      const batch = this.#takeBatch();
      this.#sendingCount = batch.length;
      await this.#transport.publish(this.#topic, encodeFrameBatch(batch), 0);
      this.#counters.forwarded += batch.length;
    }
    this.#isSending = false;
  }

  #takeBatch(): Uint8Array[] {
    let bytes = 0;
    let count = 0;
    for (const frame of this.#frames) {
      if (count > 0 && bytes + frame.length > this.#options.batchBytesMax) break;
      bytes += frame.length;
      count += 1;
    }
    this.#bytes -= bytes;
    return this.#frames.splice(0, count);
  }
}
