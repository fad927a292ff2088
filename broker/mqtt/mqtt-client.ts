import { createRequire } from 'node:module';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import {
  connect as connectTls,
  createSecureContext,
  type SecureContext,
  type TLSSocket,
} from 'node:tls';

import type * as Mqtt from 'mqtt';

import type { TlsIdentity, TlsMaterial } from '../../common/identity/tls-identity.ts';
import {
  backoffDelayMs,
  reconnectPolicy,
  type BackoffPolicy,
} from '../../common/runtime/backoff.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { systemErrorCode } from '../../common/runtime/operating-error.ts';
import type { Random } from '../../common/runtime/random.ts';
import { ConnectionTrouble, connectionCauseOf, hungUp } from './connection-trouble.ts';
import {
  MqttError,
  type MessageHandler,
  type MqttTransport,
  type QualityOfService,
} from './mqtt-transport.ts';
import { contextOf } from './neighbour-listener.ts';
import { guardPacketSize } from './packet-size-guard.ts';
import { sparePacketCache } from './spare-packet-cache.ts';
import { topicMatches } from './topics.ts';

/**
 * `import` would read each of the package's CommonJS files a second time for the names that it exports: half of the time and
 * memory of loading it, of which a relay that comes back has little to give.
 */
const { MqttClient: Connection } = createRequire(import.meta.url)('mqtt') as typeof Mqtt;

export interface MqttClientOptions {
  /** `mqtt://host:port` or `mqtts://host:port`. */
  readonly url: string;
  readonly username?: string;
  readonly password?: string;
  /** A half-open connection is noticed within one and a half of it (MQTT 3.1.1, 3.1.2.10 and PINGREQ). */
  readonly keepaliveSeconds: number;
  readonly connectTimeoutMs: number;
  readonly reconnect: BackoffPolicy;
  /** After an attempt that was refused at once (ECONNREFUSED). */
  readonly refused: BackoffPolicy;
  /** Mutual TLS with the neighbour of a relation: the url is `mqtts:`. Without, `mqtts:` is TLS 1.3 that trusts the system's authorities. */
  readonly neighbour?: NeighbourConnection;
}

/** Who must be at the other end. */
export interface NeighbourConnection {
  readonly identity: TlsIdentity;
  /** The server's certificate must come from the authority pinned for it; its host name is not looked at. */
  readonly relation: string;
  /** A packet that announces more ends the connection before it is read. */
  readonly packetBytesMax: number;
}

/**
 * A broker that is back is found within this time, however long it was away: all that waits for the hop waits for it. Sooner where the
 * machine answers that nobody listens: then an attempt in vain is two small packets, and most likely a process is about to be back.
 */
const reconnectMaxMs = 500;
const refusedMaxMs = 150;

export const mqttClientDefaults = {
  keepaliveSeconds: 5,
  connectTimeoutMs: 5_000,
  reconnect: { ...reconnectPolicy, maxMs: reconnectMaxMs },
  refused: { ...reconnectPolicy, maxMs: refusedMaxMs },
} as const;

interface Subscription {
  readonly filter: string;
  readonly qos: QualityOfService;
  readonly handler: MessageHandler;
}

const clientIdBytes = 9;
const defaultPort = { 'mqtt:': 1_883, 'mqtts:': 8_883 } as const;

/**
 * A client of any MQTT 3.1.1 broker. Connects in the background from `start` on, again and again with backoff;
 * `isConnected` and `onConnection` tell how it stands. Publishing without a connection is refused, never queued.
 *
 *   stopped --start--> connecting --CONNACK, SUBACKs--> connected --close, keepalive--> backing off --> connecting
 */
export class MqttClient implements MqttTransport {
  readonly name = 'mqtt-client';
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #options: MqttClientOptions;
  readonly #subscriptions = new Set<Subscription>();
  readonly #listeners = new Set<(isConnected: boolean) => void>();
  /** Of publishes that have no answer yet; the connection's end answers them, which MQTT.js does not always do. */
  readonly #unanswered = new Set<(cause: Error) => void>();
  #connection: Mqtt.MqttClient | undefined;
  #isConnected = false;
  #isStopped = true;
  #failedAttempts = 0;
  #cancelRetry: Cancel = () => {};
  #cancelOnChange: Cancel = () => {};
  #socket: Socket | undefined;
  /** Of the newest material; made once, as each takes a millisecond and attempts may be many. */
  #secure: { readonly material: TlsMaterial; readonly context: SecureContext } | undefined;
  readonly #trouble: ConnectionTrouble;
  /** What went wrong in the present attempt. */
  #cause: string | undefined;

  constructor(
    deps: { readonly clock: Clock; readonly random: Random; readonly log: Log },
    options: MqttClientOptions,
  ) {
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#log = deps.log;
    this.#options = options;
    const { url: address, neighbour } = options;
    const fields = neighbour === undefined ? {} : { relation: neighbour.relation };
    this.#trouble = new ConnectionTrouble(deps, { ...fields, address });
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  get failure(): string | undefined {
    return this.#trouble.cause;
  }

  start(): Promise<void> {
    sparePacketCache();
    this.#isStopped = false;
    const { neighbour } = this.#options;
    if (neighbour !== undefined) {
      this.#cancelOnChange = neighbour.identity.onChange(() => {
        this.#onTrustChange(neighbour);
      });
    }
    this.#connect();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelRetry();
    this.#cancelOnChange();
    const connection = this.#connection;
    this.#connection = undefined;
    this.#setConnected(false);
    this.#failUnanswered();
    if (connection !== undefined) await connection.endAsync(true);
  }

  publish(topic: string, payload: Uint8Array, qos: QualityOfService): Promise<void> {
    const connection = this.#connection;
    if (connection === undefined || !this.#isConnected) return Promise.reject(this.#notConnected());
    const buffer = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void => {
        this.#unanswered.delete(fail);
        const message = `publishing to ${topic} failed: ${cause.message}`;
        reject(new MqttError('mqtt-publish-failed', message, { retryable: true, cause }));
      };
      this.#unanswered.add(fail);
      connection.publish(topic, buffer, { qos }, (cause) => {
        if (cause === undefined || cause === null) {
          this.#unanswered.delete(fail);
          resolve();
        } else {
          fail(cause);
        }
      });
    });
  }

  async subscribe(filter: string, qos: QualityOfService, handler: MessageHandler): Promise<Cancel> {
    const subscription = { filter, qos, handler };
    this.#subscriptions.add(subscription);
    if (this.#connection !== undefined && this.#isConnected) {
      await this.#sendSubscriptions(this.#connection, [subscription]);
    }
    return () => {
      this.#subscriptions.delete(subscription);
      const isStillUsed = [...this.#subscriptions].some((other) => other.filter === filter);
      if (!isStillUsed && this.#isConnected) this.#connection?.unsubscribe(filter);
    };
  }

  onConnection(listener: (isConnected: boolean) => void): Cancel {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #connect(): void {
    this.#cause = undefined;
    const connection = new Connection(() => this.#openSocket(), this.#connectionOptions());
    let policy = this.#options.reconnect;
    this.#connection = connection;
    connection.on('connect', () => {
      this.#onConnected(connection).catch((cause: unknown) => {
        this.#cause ??= messageOf(cause);
        connection.end(true);
      });
    });
    connection.on('message', (topic, payload) => {
      for (const { filter, handler } of this.#subscriptions) {
        if (topicMatches(filter, topic)) handler(topic, payload);
      }
    });
    connection.on('error', (cause) => {
      this.#cause ??= connectionCauseOf(cause);
      if (systemErrorCode(cause) === 'ECONNREFUSED') policy = this.#options.refused;
      connection.end(true);
    });
    connection.once('close', () => {
      this.#onClosed(connection, policy);
    });
  }

  async #onConnected(connection: Mqtt.MqttClient): Promise<void> {
    await this.#sendSubscriptions(connection, [...this.#subscriptions]);
    if (this.#connection !== connection) return;
    this.#failedAttempts = 0;
    this.#trouble.connected();
    this.#setConnected(true);
  }

  #onClosed(connection: Mqtt.MqttClient, policy: BackoffPolicy): void {
    if (this.#connection !== connection) return;
    connection.end(true);
    this.#connection = undefined;
    this.#setConnected(false);
    this.#failUnanswered();
    if (this.#isStopped) return;
    this.#trouble.failed(this.#cause ?? hungUp);
    const delayMs = backoffDelayMs(policy, this.#failedAttempts, this.#random);
    this.#failedAttempts += 1;
    this.#cancelRetry = this.#clock.after(delayMs, () => {
      this.#connect();
    });
  }

  /** A message that waits for room in the socket would wait for ever once that is gone. */
  #failUnanswered(): void {
    for (const fail of this.#unanswered) fail(new Error('the connection ended'));
  }

  async #sendSubscriptions(
    connection: Mqtt.MqttClient,
    subscriptions: readonly Subscription[],
  ): Promise<void> {
    if (subscriptions.length === 0) return;
    const filters = Object.fromEntries(subscriptions.map(({ filter, qos }) => [filter, { qos }]));
    let grants: Awaited<ReturnType<Mqtt.MqttClient['subscribeAsync']>>;
    try {
      grants = await connection.subscribeAsync(filters);
    } catch (cause) {
      throw new MqttError('mqtt-subscribe-failed', messageOf(cause), { retryable: true, cause });
    }
    const refused = grants.find(({ qos }) => qos >= refusedGrant);
    if (refused !== undefined) {
      throw new MqttError(
        'mqtt-subscribe-failed',
        `the broker refuses ${refused.topic}: grant this client the right to read it`,
        { context: { filter: refused.topic } },
      );
    }
  }

  #openSocket(): Socket {
    const { hostname, port, protocol } = new URL(this.#options.url);
    const { neighbour } = this.#options;
    const isTls = protocol === 'mqtts:';
    const target = {
      // A URL has IPv6 addresses in brackets.
      host: hostname.replace(/^\[(.*)\]$/, '$1'),
      port: port === '' ? defaultPort[isTls ? 'mqtts:' : 'mqtt:'] : Number(port),
      noDelay: true,
    };
    let socket: Socket;
    if (neighbour !== undefined) {
      socket = connectToNeighbour(target, neighbour, this.#contextFor(neighbour));
    } else if (isTls) {
      socket = connectToExternal(target);
    } else {
      socket = connectTcp(target);
    }
    socket.setNoDelay(true);
    // MQTT.js keeps most errors of TLS to itself.
    socket.on('error', (cause) => {
      if (this.#socket === socket) this.#cause ??= connectionCauseOf(cause);
    });
    if (neighbour !== undefined) {
      guardPacketSize(socket, neighbour.packetBytesMax, () => {
        const { relation } = neighbour;
        this.#log.warn('neighbour-refused', { reason: 'packet-too-large', relation });
      });
    }
    this.#socket = socket;
    return socket;
  }

  #contextFor({ identity }: NeighbourConnection): SecureContext {
    const material = identity.material();
    if (this.#secure?.material !== material) {
      this.#secure = { material, context: createSecureContext(contextOf(material)) };
    }
    return this.#secure.context;
  }

  /** New own material is used from the next connection on; the present one ends only when its peer is trusted no longer. */
  #onTrustChange({ identity, relation }: NeighbourConnection): void {
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed || !('getPeerX509Certificate' in socket)) return;
    const certificate = (socket as TLSSocket).getPeerX509Certificate();
    if (certificate === undefined) return;
    if (identity.relationOf(certificate.raw, 'live') === relation) return;
    this.#log.warn('neighbour-refused', { reason: 'trust-withdrawn', relation });
    socket.destroy();
  }

  #connectionOptions(): Mqtt.IClientOptions {
    const { username, password, keepaliveSeconds, connectTimeoutMs } = this.#options;
    return {
      protocolVersion: 4,
      clean: true,
      clientId: `isobar-${Buffer.from(this.#random.bytes(clientIdBytes)).toString('hex')}`,
      keepalive: keepaliveSeconds,
      connectTimeout: connectTimeoutMs,
      reconnectPeriod: 0,
      resubscribe: false,
      queueQoSZero: false,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password }),
    };
  }

  #setConnected(isConnected: boolean): void {
    if (this.#isConnected === isConnected) return;
    this.#isConnected = isConnected;
    for (const listener of this.#listeners) listener(isConnected);
  }

  #notConnected(): MqttError {
    const { failure } = this;
    const why = failure === undefined ? '' : `: ${failure}`;
    return new MqttError('mqtt-not-connected', `no connection to ${this.#options.url}${why}`, {
      retryable: true,
    });
  }
}

/**
 * Which site answers is decided by its authority and never by the name that was dialled, which is therefore not sent
 * either (SNI is in the clear).
 */
function connectToNeighbour(
  target: { readonly host: string; readonly port: number },
  { identity, relation }: NeighbourConnection,
  secureContext: SecureContext,
): TLSSocket {
  return connectTls({
    ...target,
    secureContext,
    rejectUnauthorized: true,
    servername: '',
    checkServerIdentity: (_host, certificate) =>
      identity.relationOf(certificate.raw) === relation
        ? undefined
        : new Error(`the server is not the neighbour of relation ${relation}`),
  });
}

/** SNI has names only (RFC 6066, 3); an address is compared with the certificate without it. */
function connectToExternal(target: { readonly host: string; readonly port: number }): TLSSocket {
  const servername = isIP(target.host) === 0 ? target.host : '';
  return connectTls({ ...target, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', servername });
}

/** SUBACK return codes from here on are failures (MQTT 3.1.1, 3.9.3). */
const refusedGrant = 0x80;

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
