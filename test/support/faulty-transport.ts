import type {
  MessageHandler,
  MqttTransport,
  QualityOfService,
} from '../../broker/mqtt/mqtt-transport.ts';
import type { Cancel } from '../../common/runtime/clock.ts';

export interface Faults {
  /** Each chance is in [0, 1] and is drawn for each message that arrives. */
  readonly loss: number;
  readonly duplicate: number;
  /** Held back until the next message has passed it. */
  readonly reorder: number;
  /** In [0, 1). */
  readonly random: () => number;
}

/** A transport whose incoming messages are lost, repeated and reordered. Connections are the real ones. */
export class FaultyTransport implements MqttTransport {
  readonly name = 'faulty-transport';
  faults: Faults | undefined;
  /** Which messages are lost for certain. */
  loses: ((topic: string, payload: Uint8Array) => boolean) | undefined;
  readonly #inner: MqttTransport;

  constructor(inner: MqttTransport, faults?: Faults) {
    this.#inner = inner;
    this.faults = faults;
  }

  get isConnected(): boolean {
    return this.#inner.isConnected;
  }

  start(): Promise<void> {
    return this.#inner.start();
  }

  stop(): Promise<void> {
    return this.#inner.stop();
  }

  publish(topic: string, payload: Uint8Array, qos: QualityOfService): Promise<void> {
    return this.#inner.publish(topic, payload, qos);
  }

  subscribe(filter: string, qos: QualityOfService, handler: MessageHandler): Promise<Cancel> {
    let heldBack: [string, Uint8Array] | undefined;
    return this.#inner.subscribe(filter, qos, (topic, payload) => {
      const { faults } = this;
      if (this.loses?.(topic, payload) === true) return;
      if (faults !== undefined && faults.random() < faults.loss) return;
      if (faults !== undefined && heldBack === undefined && faults.random() < faults.reorder) {
        heldBack = [topic, payload];
        return;
      }
      handler(topic, payload);
      if (faults !== undefined && faults.random() < faults.duplicate) handler(topic, payload);
      if (heldBack !== undefined) handler(...heldBack);
      heldBack = undefined;
    });
  }

  onConnection(listener: (isConnected: boolean) => void): Cancel {
    return this.#inner.onConnection(listener);
  }
}
