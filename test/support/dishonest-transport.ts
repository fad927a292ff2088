import type {
  MessageHandler,
  MqttTransport,
  QualityOfService,
} from '../../broker/mqtt/mqtt-transport.ts';
import type { Cancel } from '../../common/runtime/clock.ts';
import {
  decodeDownstream,
  encodeControl,
  type DownstreamMessage,
  type KeyStatementsMessage,
} from '../../common/wire/control-message.ts';
import { decodeFrameBatch, encodeFrameBatch } from '../../common/wire/frame-batch.ts';

/** What an intermediary sends on: as it came, until a test says otherwise. */
export class DishonestTransport implements MqttTransport {
  readonly name = 'dishonest-transport';
  /** What is made of the frames of one message, live or asked for. */
  frames: (frames: readonly Uint8Array[]) => readonly Uint8Array[] = (frames) => frames;
  /** What is made of a message with key statements; undefined: withheld. */
  statements: (message: KeyStatementsMessage) => KeyStatementsMessage | undefined = (message) =>
    message;
  /** What is said instead of any other control message. */
  control: (message: DownstreamMessage) => readonly DownstreamMessage[] = (message) => [message];
  /** Everything that went out. */
  readonly sent: { readonly topic: string; readonly payload: Uint8Array }[] = [];
  readonly #inner: MqttTransport;

  constructor(inner: MqttTransport) {
    this.#inner = inner;
  }

  get isConnected(): boolean {
    return this.#inner.isConnected;
  }

  /** Certificates of statements that went out, in order. */
  get certificates(): readonly string[] {
    return this.sent.flatMap(({ payload }) => {
      const decoded = decodeDownstream(payload);
      return decoded.ok && decoded.message.kind === 'key-statements'
        ? [decoded.message.certificate]
        : [];
    });
  }

  start(): Promise<void> {
    return this.#inner.start();
  }

  stop(): Promise<void> {
    return this.#inner.stop();
  }

  async publish(topic: string, payload: Uint8Array, qos: QualityOfService): Promise<void> {
    const changed = topic.endsWith('/down/control')
      ? this.#control(payload)
      : [encodeFrameBatch(this.frames(framesIn(payload)))];
    for (const each of changed) this.sent.push({ topic, payload: each });
    await Promise.all(changed.map((each) => this.#inner.publish(topic, each, qos)));
  }

  subscribe(filter: string, qos: QualityOfService, handler: MessageHandler): Promise<Cancel> {
    return this.#inner.subscribe(filter, qos, handler);
  }

  onConnection(listener: (isConnected: boolean) => void): Cancel {
    return this.#inner.onConnection(listener);
  }

  #control(payload: Uint8Array): readonly Uint8Array[] {
    const decoded = decodeDownstream(payload);
    if (!decoded.ok) return [payload];
    const { message } = decoded;
    if (message.kind !== 'key-statements') return this.control(message).map(encodeControl);
    const statements = this.statements(message);
    return statements === undefined ? [] : [encodeControl(statements)];
  }
}

function framesIn(payload: Uint8Array): readonly Uint8Array[] {
  const batch = decodeFrameBatch(payload);
  if (!batch.ok) throw new Error(batch.rule);
  return batch.frames;
}
