import type { StageCounters } from '../../common/runtime/stage-counters.ts';
import { encodeFrameBatch } from '../../common/wire/frame-batch.ts';
import type { MqttTransport } from '../mqtt/mqtt-transport.ts';

export interface LiveQueueOptions {
  readonly batchBytesMax: number;
  /** Beyond it the oldest frames of the VM that has most are dropped: the consumer sees the gap and asks for them. */
  readonly liveQueueBytesMax: number;
}

interface Waiting {
  /** Those before `next` are gone. */
  readonly frames: Uint8Array[];
  next: number;
  bytes: number;
}

/** An array is shortened once so many of its frames are gone, and they are half of it. */
const goneFramesMax = 1_024;

/**
 * Live frames on their way to one consumer. A frame that finds the transport free goes at once and alone; those that
 * come while a message is being written share the next one. So batching never waits for anything. VMs take turns: one that
 * floods delays and drops its own frames only.
 */
export class LiveQueue {
  readonly #transport: Pick<MqttTransport, 'publish'>;
  readonly #topic: string;
  readonly #options: LiveQueueOptions;
  readonly #counters: StageCounters;
  /** Never without a frame; who is first has its turn next. */
  readonly #vms = new Map<string, Waiting>();
  #bytes = 0;
  #sendingCount = 0;
  #isSending = false;

  constructor(
    transport: Pick<MqttTransport, 'publish'>,
    topic: string,
    options: LiveQueueOptions,
    counters: StageCounters,
  ) {
    this.#transport = transport;
    this.#topic = topic;
    this.#options = options;
    this.#counters = counters;
  }

  push(vm: string, frame: Uint8Array): void {
    const waiting = this.#vms.get(vm) ?? { frames: [], next: 0, bytes: 0 };
    waiting.frames.push(frame);
    waiting.bytes += frame.length;
    this.#vms.set(vm, waiting);
    this.#bytes += frame.length;
    while (this.#bytes > this.#options.liveQueueBytesMax && this.#dropOldest());
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
    for (const waiting of this.#vms.values()) this.#counters.dropped += countOf(waiting);
    this.#vms.clear();
    this.#bytes = 0;
  }

  async #sendAll(): Promise<void> {
    while (this.#vms.size > 0) {
      const batch = this.#takeBatch();
      this.#sendingCount = batch.length;
      await this.#transport.publish(this.#topic, encodeFrameBatch(batch), 0);
      this.#counters.forwarded += batch.length;
    }
    this.#isSending = false;
  }

  /** One frame of each VM in turn, as many as fit. */
  #takeBatch(): Uint8Array[] {
    const batch: Uint8Array[] = [];
    let bytes = 0;
    for (;;) {
      const [vm, waiting] = this.#vms.entries().next().value ?? [];
      const frame = waiting?.frames[waiting.next];
      if (vm === undefined || waiting === undefined || frame === undefined) return batch;
      if (batch.length > 0 && bytes + frame.length > this.#options.batchBytesMax) return batch;
      batch.push(frame);
      bytes += frame.length;
      this.#remove(vm, waiting);
      // The others come first now.
      if (this.#vms.delete(vm)) this.#vms.set(vm, waiting);
    }
  }

  /** False when that is the only frame, which goes however large it is. */
  #dropOldest(): boolean {
    let [largest] = this.#vms;
    for (const entry of this.#vms) {
      if (largest === undefined || entry[1].bytes > largest[1].bytes) largest = entry;
    }
    if (largest === undefined || (this.#vms.size === 1 && countOf(largest[1]) === 1)) {
      return false;
    }
    this.#remove(...largest);
    this.#counters.dropped += 1;
    return true;
  }

  #remove(vm: string, waiting: Waiting): void {
    const { frames } = waiting;
    const bytes = frames[waiting.next]?.length ?? 0;
    waiting.next += 1;
    if (waiting.next > goneFramesMax && 2 * waiting.next > frames.length) {
      frames.splice(0, waiting.next);
      waiting.next = 0;
    }
    waiting.bytes -= bytes;
    this.#bytes -= bytes;
    if (countOf(waiting) === 0) this.#vms.delete(vm);
  }
}

function countOf({ frames, next }: Waiting): number {
  return frames.length - next;
}
