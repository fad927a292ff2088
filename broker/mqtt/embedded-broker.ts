import { createServer, type Server, type Socket } from 'node:net';

import { Aedes, type AedesPublishPacket } from 'aedes';

import type { Cancel } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import {
  MqttError,
  type MessageHandler,
  type MqttTransport,
  type QualityOfService,
} from './mqtt-transport.ts';

export interface EmbeddedBrokerOptions {
  /** Loopback only while no relation is authenticated. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly connectionsMax: number;
  /** How long a client's socket may take nothing before it is cut. */
  readonly drainTimeoutMs: number;
}

export const embeddedBrokerDefaults: EmbeddedBrokerOptions = {
  host: '127.0.0.1',
  port: 0,
  connectionsMax: 1_024,
  drainTimeoutMs: 15_000,
};

/** An MQTT broker in this process (Aedes), and the transport of whoever runs it: no socket in between. */
export class EmbeddedBroker implements MqttTransport {
  readonly name = 'embedded-broker';
  readonly #log: Log;
  readonly #options: EmbeddedBrokerOptions;
  readonly #sockets = new Set<Socket>();
  readonly #listeners = new Set<(isConnected: boolean) => void>();
  #aedes: Aedes | undefined;
  #server: Server | undefined;

  constructor(
    deps: { readonly log: Log },
    options: EmbeddedBrokerOptions = embeddedBrokerDefaults,
  ) {
    this.#log = deps.log;
    this.#options = options;
  }

  get isConnected(): boolean {
    return this.#server !== undefined;
  }

  /** `mqtt://host:port` of the running broker. */
  get url(): string {
    const address = this.#server?.address();
    if (address === null || typeof address !== 'object') {
      throw new MqttError('mqtt-not-connected', 'the embedded broker is not running');
    }
    return `mqtt://${address.address}:${address.port}`;
  }

  /** @throws MqttError `mqtt-listen-failed`, for instance when another process has the port. */
  async start(): Promise<void> {
    const aedes = await Aedes.createBroker({
      // One message in flight for each publisher is our own rule, so nothing else needs to be held back here.
      concurrency: 0,
      drainTimeout: this.#options.drainTimeoutMs,
      heartbeatInterval: 60_000,
    });
    const server = createServer({ noDelay: true }, (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => {
        this.#sockets.delete(socket);
      });
      aedes.handle(socket);
    });
    server.maxConnections = this.#options.connectionsMax;
    const authorizePublish = aedes.authorizePublish.bind(aedes);
    aedes.authorizePublish = (client, packet, done) => {
      authorizePublish(client, Object.assign(packet, { brokerId: sequenceOf(packet.qos) }), done);
    };
    aedes.on('clientError', (client, error) => {
      this.#log.debug('mqtt-client-error', { client: client.id, cause: error.message });
    });
    this.#aedes = aedes;
    try {
      await listen(server, this.#options.host, this.#options.port);
    } catch (cause) {
      aedes.close();
      const { host, port } = this.#options;
      throw new MqttError(
        'mqtt-listen-failed',
        `cannot listen on ${host}:${port}: choose another port or stop what uses it`,
        { cause, context: { host, port } },
      );
    }
    this.#server = server;
    for (const listener of this.#listeners) listener(true);
  }

  async stop(): Promise<void> {
    const server = this.#server;
    const aedes = this.#aedes;
    if (server === undefined || aedes === undefined) return;
    this.#server = undefined;
    this.#aedes = undefined;
    for (const listener of this.#listeners) listener(false);
    const closed = new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
    });
    await new Promise<void>((resolve) => {
      aedes.close(resolve);
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** At the broker, which is all that QoS 1 promises, it is at once: so all messages take one way and keep their order. */
  publish(topic: string, payload: Uint8Array, _qos: QualityOfService): Promise<void> {
    const aedes = this.#aedes;
    if (aedes === undefined || this.#server === undefined) {
      return Promise.reject(notRunning());
    }
    return new Promise((resolve, reject) => {
      const packet = {
        cmd: 'publish' as const,
        topic,
        payload: asBuffer(payload),
        qos: 0 as const,
        retain: false,
        dup: false,
      };
      aedes.publish(packet, (error) => {
        if (error === undefined || error === null) resolve();
        else reject(publishFailed(topic, error));
      });
    });
  }

  async subscribe(
    filter: string,
    _qos: QualityOfService,
    handler: MessageHandler,
  ): Promise<Cancel> {
    const aedes = this.#aedes;
    if (aedes === undefined) throw notRunning();
    const deliver = (packet: AedesPublishPacket, done: () => void): void => {
      handler(packet.topic, asBuffer(packet.payload));
      done();
    };
    await new Promise<void>((resolve) => {
      aedes.subscribe(filter, deliver, resolve);
    });
    return () => {
      if (this.#aedes === aedes) aedes.unsubscribe(filter, deliver, () => {});
    };
  }

  onConnection(listener: (isConnected: boolean) => void): Cancel {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }
}

/**
 * Aedes takes for a repetition, and drops without a word, what has a lower number than something that a client got before
 * under the same `brokerId`. A QoS 1 message is numbered before it waits for a look-up, in which a QoS 0 message overtakes
 * it: so each level has numbers of its own (docs/decisions/qos-of-the-embedded-broker.md).
 */
function sequenceOf(qos: number): string {
  return `qos-${qos}`;
}

function asBuffer(payload: Uint8Array | string): Buffer {
  if (typeof payload === 'string') return Buffer.from(payload, 'utf8');
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
}

function notRunning(): MqttError {
  return new MqttError('mqtt-not-connected', 'the embedded broker is not running', {
    retryable: true,
  });
}

function publishFailed(topic: string, cause: Error): MqttError {
  return new MqttError('mqtt-publish-failed', `publishing to ${topic} failed: ${cause.message}`, {
    retryable: true,
    cause,
  });
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
