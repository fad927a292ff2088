import { createServer, type Server, type Socket } from 'node:net';

import {
  Aedes,
  type AedesOptions,
  type AedesPublishPacket,
  type Client,
  type PublishPacket,
} from 'aedes';

import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { frameBytesMax } from '../../common/wire/frame-codec.ts';
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
  type RefusalReason,
} from './neighbour-listener.ts';
import { mayPublish, mayRead, type Neighbour } from './neighbour-rights.ts';
import { guardPacketSize } from './packet-size-guard.ts';
import { PublishPacer } from './publish-pacer.ts';
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
/** Filters of one neighbour's client; a relation needs four. */
const filtersPerClientMax = 64;

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
  readonly #localSockets = new WeakSet<object>();
  readonly #neighbours = new WeakMap<object, Neighbour>();
  readonly #clock: Clock | undefined;
  /** By relation. */
  readonly #neighbourPacers = new Map<string, PublishPacer>();
  readonly #localPacers = new WeakMap<object, PublishPacer>();
  readonly #clients = new Set<Client>();
  /** Why a connection ended: Aedes goes on with the packets, and filters of a packet, that it has read already. */
  readonly #refused = new WeakMap<object, Error>();
  #aedes: Aedes | undefined;
  #server: Server | undefined;
  #neighbourListener: NeighbourListener | undefined;

  /** With a clock the messages of each neighbour, and of each local client, pass at a bounded rate. */
  constructor(
    deps: { readonly log: Log; readonly clock?: Clock },
    options: EmbeddedBrokerOptions = embeddedBrokerDefaults,
  ) {
    this.#log = deps.log;
    this.#clock = deps.clock;
    this.#options = options;
    this.#refusals = new Refusals(deps);
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
      ...this.#authorization(),
    });
    const authorizePublish = aedes.authorizePublish.bind(aedes);
    aedes.authorizePublish = (client, packet, done) => {
      const refusal = this.#publishRefusal(client, packet);
      if (refusal === undefined) {
        this.#pace(client, () => {
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
      this.#localSockets.add(socket);
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
      this.#neighbours.set(socket, neighbour);
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

  /** Local clients may do anything; a client that is neither local nor a known neighbour may do nothing. */
  #authorization(): Partial<AedesOptions> {
    return {
      preConnect: (client, packet, done) => {
        if (this.#isLocal(client)) {
          done(null, true);
          return;
        }
        const neighbour = this.#neighbours.get(client.conn);
        // Clean sessions without a will leave nothing behind in the broker.
        if (neighbour === undefined || !packet.clean || packet.will !== undefined) {
          done(this.#refuse('protocol', client), false);
          return;
        }
        // A client id that is in use takes over its connection: no neighbour may choose one of somebody else.
        packet.clientId = `${neighbour.relation}/${packet.clientId}`;
        done(null, true);
      },
      authorizeSubscribe: (client, subscription, done) => {
        if (this.#isLocal(client)) {
          done(null, subscription);
          return;
        }
        const neighbour = this.#neighbours.get(client.conn);
        if (neighbour === undefined || !mayRead(neighbour, subscription.topic)) {
          done(this.#refuse('subscribe-not-allowed', client));
        } else if (filtersOf(client).length >= filtersPerClientMax) {
          done(this.#refuse('protocol', client));
        } else {
          done(null, subscription);
        }
      },
      authorizeForward: (client, packet) => {
        if (this.#isLocal(client)) return packet;
        const neighbour = this.#neighbours.get(client.conn);
        return neighbour !== undefined && mayRead(neighbour, packet.topic) ? packet : null;
      },
    };
  }

  #publishRefusal(client: Client | null, packet: PublishPacket): Error | undefined {
    if (client === null || this.#isLocal(client)) return undefined;
    const neighbour = this.#neighbours.get(client.conn);
    if (neighbour === undefined || !mayPublish(neighbour, packet.topic)) {
      return this.#refuse('publish-not-allowed', client);
    }
    return packet.retain || packet.qos > 1 ? this.#refuse('protocol', client) : undefined;
  }

  #pace(client: Client | null, go: () => void): void {
    const pacer = client === null ? undefined : this.#pacerOf(client);
    if (pacer === undefined) go();
    else pacer.pass(go);
  }

  #pacerOf({ conn }: Client): PublishPacer | undefined {
    if (this.#clock === undefined) return undefined;
    const relation = this.#neighbours.get(conn)?.relation;
    const known =
      relation === undefined ? this.#localPacers.get(conn) : this.#neighbourPacers.get(relation);
    const pacer = known ?? new PublishPacer(this.#clock);
    if (relation === undefined) this.#localPacers.set(conn, pacer);
    else this.#neighbourPacers.set(relation, pacer);
    return pacer;
  }

  #isLocal(client: Client): boolean {
    return this.#localSockets.has(client.conn);
  }

  /** Ends the connection; counted and logged once for each. Aedes calls no handler further for the error. */
  #refuse(reason: RefusalReason, { conn }: Client): Error {
    const known = this.#refused.get(conn);
    if (known !== undefined) return known;
    const refusal = new Error(reason);
    this.#refused.set(conn, refusal);
    this.#refusals.add(reason, this.#neighbours.get(conn) ?? {});
    conn.destroy();
    return refusal;
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

/** Aedes keeps subscriptions by filter. */
function filtersOf(client: Client): readonly string[] {
  const subscriptions: unknown = 'subscriptions' in client ? client.subscriptions : undefined;
  return typeof subscriptions === 'object' && subscriptions !== null
    ? Object.keys(subscriptions)
    : [];
}
