import assert from 'node:assert';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { consumerDefaults } from '../../../broker/consumer/consumer-options.ts';
import { Consumer } from '../../../broker/consumer/consumer.ts';
import { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { decodeDownstream, decodeUpstream } from '../../../common/wire/control-message.ts';
import { decodeFrameBatch, encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import { decodeFrameHeader } from '../../../common/wire/frame-codec.ts';
import type { EncodedFrame } from '../../../common/wire/frame.ts';
import { eventually } from '../../support/eventually.ts';
import { Origin } from '../../support/origin.ts';
import { chainedFrames, dataStream, sampleEpoch } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { CountingLog } from '../counting-log.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';
import { goldenBytes, goldenControlMessages } from '../golden-files.ts';
import { joinParts, partsIn } from '../parts.ts';

const timeoutMs = 10_000;
/** In the golden messages; stands for the session that is in force. */
const goldenSession = /"s_1"/g;
const clock = new SystemClock();
const random = new SystemRandom();
const stream = dataStream('vm1');

/** The first byte of a part says where it goes. */
const topics = ['down/live', 'down/range/r_1', 'down/control', 'up/control'] as const;

/** What neighbours say on every topic of a relation, to a consumer and to a producer. */
export const neighbourPayloads: FuzzTarget = {
  name: 'neighbour-payloads',
  dictionary: ['"s_1"', '"kind":"heads"', '"throughSeq":9007199254740991'],
  start: startNeighbours,
};

async function startNeighbours(): Promise<RunningFuzzTarget> {
  const directory = temporaryDirectory();
  const counting = new CountingLog();
  const broker = new EmbeddedBroker({ log: counting.log });
  await broker.start();
  const origin = new Origin(broker, join(directory.path, 'log.db'), {
    relations: ['attacked', 'sound'],
  });
  await origin.producer.start();
  origin.openEpoch(stream);
  const sound = new CountedConsumer(broker, 'sound', counting);
  await sound.consumer.start();
  const attacked = new AttackedRelation(broker, counting);
  await attacked.start();
  const frames = chainedFrames(stream, 4).map(({ bytes }) => bytes);
  const batches = [...goldenBytes('wire', /^frame-batch/), encodeFrameBatch(frames)];
  const samples = [
    ...batches.flatMap((batch) => [addressedTo(0, batch), addressedTo(1, batch)]),
    ...goldenControlMessages('down').map((message) => addressedTo(2, message)),
    ...goldenControlMessages('up').map((message) => addressedTo(3, message)),
  ];
  return {
    samples: [...samples.map((sample) => joinParts([sample])), joinParts(samples)],
    generate: (chance) => joinParts([addressedTo(2, newEpochs(chance))]),
    run: (input) => attacked.take(Array.from(partsIn(input))),
    checkStillWorks: async () => {
      const frame = origin.append(stream);
      await eventually(() => sound.newestSeq === frame.header.seq, { timeoutMs });
      await attacked.restart();
      counting.check();
    },
    stop: async () => {
      await attacked.stop();
      await sound.consumer.stop();
      await origin.close();
      await broker.stop();
      directory[Symbol.dispose]();
    },
  };
}

/** What goes to the topic of that index. */
function addressedTo(topic: number, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([topic]), payload]);
}

/** Both ends are in this process: all epochs that are known are asked for, and answered, within one input. */
const bounds = { epochsMax: 512, reportIntervalMs: 5 };

/** A consumer whose sink keeps nothing but the newest seq. */
class CountedConsumer {
  readonly consumer: Consumer;
  newestSeq = 0;

  constructor(broker: EmbeddedBroker, relation: string, { log }: CountingLog) {
    const sink = {
      store: (frames: readonly EncodedFrame[]) => {
        for (const { header } of frames) this.newestSeq = header.seq;
        return Promise.resolve();
      },
      declareLost: () => Promise.resolve(),
      stored: () => [],
    };
    this.consumer = new Consumer(
      { transport: broker, sink, clock, random, log },
      { ...consumerDefaults, ...bounds, relation, storedBy: 'final-reader' },
    );
  }
}

/** The relation that anybody says anything in. */
class AttackedRelation {
  readonly #broker: EmbeddedBroker;
  readonly #log: CountingLog;
  #counted: CountedConsumer;
  #session = '';

  constructor(broker: EmbeddedBroker, log: CountingLog) {
    this.#broker = broker;
    this.#log = log;
    this.#counted = new CountedConsumer(broker, 'attacked', log);
  }

  async start(): Promise<void> {
    await this.#broker.subscribe('n/attacked/up/control', 1, (_topic, payload) => {
      const decoded = decodeUpstream(payload);
      if (decoded.ok && decoded.message.kind === 'subscribe') {
        this.#session = decoded.message.session;
      }
    });
    await this.#counted.consumer.start();
    await turn();
  }

  async stop(): Promise<void> {
    await this.#counted.consumer.stop();
  }

  /** What was made up is forgotten with its consumer. */
  async restart(): Promise<void> {
    await this.#counted.consumer.stop();
    this.#counted = new CountedConsumer(this.#broker, 'attacked', this.#log);
    await this.#counted.consumer.start();
    await turn();
  }

  async take(parts: readonly Buffer[]): Promise<void> {
    for (const part of parts) {
      const topic = topics[(part[0] ?? 0) % topics.length] ?? topics[0];
      const bytes = part.subarray(1);
      const isControl = topic.endsWith('control');
      const payload = isControl ? this.#addressed(bytes) : bytes;
      const failedBefore = this.#counted.consumer.counters.failed;
      await this.#broker.publish(`n/attacked/${topic}`, payload, 1);
      if (topic !== 'up/control' && !isReadable(topic, payload)) {
        const { failed } = this.#counted.consumer.counters;
        assert(failed > failedBefore, `what is refused on ${topic} is counted`);
      }
    }
    await turn();
  }

  #addressed(bytes: Buffer): Buffer {
    const text = bytes.toString('latin1').replaceAll(goldenSession, `"${this.#session}"`);
    return Buffer.from(text, 'latin1');
  }
}

function isReadable(topic: string, payload: Uint8Array): boolean {
  if (topic === 'down/control') return decodeDownstream(payload).ok;
  const batch = decodeFrameBatch(payload);
  return batch.ok && batch.frames.every((frame) => decodeFrameHeader(frame).ok);
}

/** Heads of epochs that nobody has heard of. */
function newEpochs(chance: FuzzRandom): Uint8Array {
  const heads = Array.from({ length: chance.below(100) }, () => ({
    stream: { vm: `vm${chance.below(1_000)}`, kind: 'data' },
    epoch: { number: chance.below(2 ** 31), nonce: chance.bytes(8).toString('hex') },
    throughSeq: chance.pick([1, sampleEpoch.number, 2 ** 31, Number.MAX_SAFE_INTEGER]),
  }));
  const base = { v: 1, session: 's_1', kind: 'heads', instance: 'i' };
  return Buffer.from(JSON.stringify({ ...base, heads }));
}
