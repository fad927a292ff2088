import { createServer, type Server, type Socket } from 'node:net';

import { Aedes, type AedesPublishPacket, type Client } from 'aedes';

import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { frameBytesMax } from '../../common/wire/frame-codec.ts';
import { ClientRights, filtersOf } from './client-rights.ts';
import { hostAndPortOf, listen } from './listen.ts';
import {
  MqttError,
  type MessageHandler,
  type MqttTransport,
  type QualityOfService,
} from './mqtt-transport.ts';
import {
  NeighbourListener,
  Refusals,
  type NeighbourListenerOptions,
} from './neighbour-listener.ts';
import type { Neighbour } from './neighbour-rights.ts';
import { guardPacketSize } from './packet-size-guard.ts';
import { sparePacketCache } from './spare-packet-cache.ts';
import { topicMatches } from './topics.ts';

export interface EmbeddedBrokerOptions {
  /** Whether clients without a certificate are served on `host` and `port`; they may do anything. Default: true. */
  readonly listensLocally?: boolean;
  /** Loopback only: who reaches this port is not asked who it is. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly connectionsMax: number;
  /** How long a client's socket may take nothing before it is cut. */
  readonly drainTimeoutMs: number;
  /** Serves neighbours too, over mutual TLS, each within its relation's subtree. */
  readonly neighbours?: NeighbourListenerOptions;
}

export const embeddedBrokerDefaults: EmbeddedBrokerOptions = {
  host: '127.0.0.1',
  port: 0,
  connectionsMax: 1_024,
  drainTimeoutMs: 15_000,
};

interface LocalSubscription {
  readonly filter: string;
  readonly deliver: (packet: AedesPublishPacket, done: () => void) => void;
}

/** How long a client may take from the open connection to its CONNECT packet. */
const connectPacketTimeoutMs = 5_000;
/** Of a local client: the largest frame, and what is around it. */
const localPacketBytesMax = frameBytesMax + 65_536;

/**
 * An MQTT broker in this process (Aedes), and the transport of whoever runs it: no socket in between. Neighbours get
 * 3.1.1's clean sessions, QoS 0 and 1, nothing retained and no will, so that a neighbour can't make the broker keep
 * anything; whoever steps over its rights is disconnected, counted and logged.
 */
export class EmbeddedBroker implements MqttTransport {
  readonly name = 'embedded-broker';
  readonly #log: Log;
  readonly #options: EmbeddedBrokerOptions;
  readonly #sockets = new Set<Socket>();
  readonly #listeners = new Set<(isConnected: boolean) => void>();
  /** Of this process; they outlast a restart, as a client's do. */
  readonly #subscriptions = new Set<LocalSubscription>();
  readonly #refusals: Refusals;
  readonly #rights: ClientRights;
  readonly #clients = new Set<Client>();
  #aedes: Aedes | undefined;
  #server: Server | undefined;
  #neighbourListener: NeighbourListener | undefined;

  /** With a clock the messages of each neighbour, and of each local client, pass at a bounded rate. */
  constructor(
    deps: { readonly log: Log; readonly clock?: Clock },
    options: EmbeddedBrokerOptions = embeddedBrokerDefaults,
  ) {
    this.#log = deps.log;
    this.#options = options;
    this.#refusals = new Refusals(deps);
    this.#rights = new ClientRights(deps.clock, this.#refusals);
  }

  get isConnected(): boolean {
    return this.#aedes !== undefined;
  }

  /** `mqtt://host:port` for local clients. */
  get url(): string {
    const address = hostAndPortOf(this.#server);
    if (address === undefined) throw notRunning();
    return `mqtt://${address}`;
  }

  /** `mqtts://host:port` for neighbours. */
  get neighbourUrl(): string {
    const address = hostAndPortOf(this.#neighbourListener?.server);
    if (address === undefined) throw notRunning();
    return `mqtts://${address}`;
  }

  /** Connections and packets that were refused since the broker was built; of local clients only packets that are too large. */
  get refusals(): Pick<Refusals, 'count' | 'total'> {
    return this.#refusals;
  }

  /** What clients have not taken yet, in this process; what waits in the kernel is not in it. */
  get bufferedBytes(): number {
    return [...this.#sockets].reduce((sum, socket) => sum + socket.writableLength, 0);
  }

  /** @throws MqttError `mqtt-listen-failed`, for instance when another process has the port. */
  async start(): Promise<void> {
    sparePacketCache();
    const aedes = await Aedes.createBroker({
      // One message in flight for each publisher is our own rule, so nothing else needs to be held back here.
      concurrency: 0,
      connectTimeout: connectPacketTimeoutMs,
      drainTimeout: this.#options.drainTimeoutMs,
      heartbeatInterval: 60_000,
      ...this.#rights.handlers(),
    });
    const authorizePublish = aedes.authorizePublish.bind(aedes);
    aedes.authorizePublish = (client, packet, done) => {
      const refusal = this.#rights.publishRefusal(client, packet);
      if (refusal === undefined) {
        this.#rights.pace(client, () => {
          authorizePublish(
            client,
            Object.assign(packet, { brokerId: sequenceOf(packet.qos) }),
            done,
          );
        });
      } else {
        done(refusal);
      }
    };
    aedes.on('clientReady', (client) => {
      this.#clients.add(client);
    });
    aedes.on('clientDisconnect', (client) => {
      this.#clients.delete(client);
    });
    aedes.on('clientError', (client, error) => {
      this.#log.debug('mqtt-client-error', { client: client.id, cause: error.message });
    });
    try {
      if (this.#options.listensLocally !== false) await this.#listenLocally(aedes);
      await this.#listenToNeighbours(aedes);
    } catch (cause) {
      await this.#close(aedes);
      throw cause;
    }
    for (const subscription of this.#subscriptions) await subscribeTo(aedes, subscription);
    this.#aedes = aedes;
    for (const listener of this.#listeners) listener(true);
  }

  async stop(): Promise<void> {
    const aedes = this.#aedes;
    if (aedes === undefined) return;
    this.#aedes = undefined;
    for (const listener of this.#listeners) listener(false);
    await this.#close(aedes);
  }

  async #listenLocally(aedes: Aedes): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => {
      this.#rights.addLocal(socket);
      guardPacketSize(socket, localPacketBytesMax, () => {
        this.#refusals.add('packet-too-large', {});
      });
      this.#handle(aedes, socket);
    });
    server.maxConnections = this.#options.connectionsMax;
    await listen(server, this.#options.host, this.#options.port);
    this.#server = server;
  }

  async #listenToNeighbours(aedes: Aedes): Promise<void> {
    if (this.#options.neighbours === undefined) return;
    const onNeighbour = (socket: Socket, neighbour: Neighbour): void => {
      this.#rights.addNeighbour(socket, neighbour);
      this.#handle(aedes, socket);
    };
    const deps = { refusals: this.#refusals, onNeighbour };
    const listener = new NeighbourListener(deps, this.#options.neighbours);
    await listener.start();
    this.#neighbourListener = listener;
  }

  #handle(aedes: Aedes, socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => {
      this.#sockets.delete(socket);
    });
    aedes.handle(socket);
  }

  async #close(aedes: Aedes): Promise<void> {
    const server = this.#server;
    const neighbours = this.#neighbourListener;
    this.#server = undefined;
    this.#neighbourListener = undefined;
    const closed = new Promise<void>((resolve) => {
      if (server === undefined) resolve();
      else {
        server.close(() => {
          resolve();
        });
      }
    });
    const neighboursClosed = neighbours?.stop().closed;
    await new Promise<void>((resolve) => {
      aedes.close(resolve);
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    await neighboursClosed;
  }

  /** At the broker, which is all that QoS 1 promises, it is at once: so all messages take one way and keep their order. */
  publish(topic: string, payload: Uint8Array, _qos: QualityOfService): Promise<void> {
    const aedes = this.#aedes;
    if (aedes === undefined) return Promise.reject(notRunning());
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
    const deliver = (packet: AedesPublishPacket, done: () => void): void => {
      handler(packet.topic, asBuffer(packet.payload));
      done();
    };
    const subscription = { filter, deliver };
    this.#subscriptions.add(subscription);
    if (this.#aedes !== undefined) await subscribeTo(this.#aedes, subscription);
    return () => {
      if (this.#subscriptions.delete(subscription)) {
        this.#aedes?.unsubscribe(filter, deliver, () => {});
      }
    };
  }

  /** A client that is no longer heard is cut within one and a half of the keepalive that it announced (MQTT 3.1.1, 3.1.2.10). */
  hasReader(topic: string): boolean {
    return [...this.#clients].some((client) =>
      filtersOf(client).some((filter) => topicMatches(filter, topic)),
    );
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

function subscribeTo(aedes: Aedes, { filter, deliver }: LocalSubscription): Promise<void> {
  return new Promise((resolve) => {
    aedes.subscribe(filter, deliver, resolve);
  });
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
