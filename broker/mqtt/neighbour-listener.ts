import type { Server as NetServer, Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';

import { OpenHandshakes, type HandshakeBounds } from '../../common/identity/open-handshakes.ts';
import type { TlsIdentity, TlsMaterial } from '../../common/identity/tls-identity.ts';
import { SystemClock, type Cancel, type Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { listen } from './listen.ts';
import type { Neighbour, NeighbourRole } from './neighbour-rights.ts';
import { guardPacketSize } from './packet-size-guard.ts';

export interface NeighbourListenerOptions extends HandshakeBounds {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly identity: TlsIdentity;
  /** What the neighbour is in this relation; undefined refuses it. Asked at each connection. */
  readonly roleOf: (relation: string) => NeighbourRole | undefined;
  /** Of all neighbours together; further ones are refused. */
  readonly connectionsMax: number;
  /** Further connections of the same relation are refused. */
  readonly connectionsPerNeighbourMax: number;
  /** A peer whose handshake takes longer is cut. */
  readonly handshakeTimeoutMs: number;
  /** A packet that announces more is refused with its connection, before it is read. */
  readonly packetBytesMax: number;
}

export const neighbourListenerDefaults = {
  port: 8_883,
  connectionsMax: 2_048,
  handshakesMax: 256,
  handshakesPerAddressMax: 32,
  connectionsPerNeighbourMax: 8,
  handshakeTimeoutMs: 5_000,
  packetBytesMax: 4 * 1_024 * 1_024,
} as const;

/** Why a connection or a packet of a neighbour was refused. */
export type RefusalReason =
  | 'handshake-failed'
  | 'too-many-handshakes'
  | 'unknown-peer'
  | 'no-role'
  | 'too-many-connections'
  | 'trust-withdrawn'
  | 'packet-too-large'
  | 'protocol'
  | 'publish-not-allowed'
  | 'subscribe-not-allowed';

/** Connections that gave way to others come by the thousand: one line for so many. */
const givenUpPerLine = 1_000;

/** Who was refused; `address` without the port. */
export interface RefusedPeer {
  readonly relation?: string | undefined;
  readonly address?: string | undefined;
}

/** A peer that is refused over and over is written of this often. */
const refusalIntervalMs = 60_000;
/** Peers and reasons that are told apart within it; all further ones are one. */
const refusalKindsMax = 16;
const otherPeers = 'others';

interface ToldRefusal {
  readonly atMs: number;
  leftOutCount: number;
}

/**
 * Counts refusals by reason. The log has the first of each address, relation and reason, then at most one a minute with the
 * count of those left out (`leftOutCount`); never what was refused.
 */
export class Refusals {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #counts = new Map<RefusalReason, number>();
  readonly #told = new Map<string, ToldRefusal>();

  constructor({ clock = new SystemClock(), log }: { readonly clock?: Clock; readonly log: Log }) {
    this.#clock = clock;
    this.#log = log;
  }

  add(reason: RefusalReason, { relation, address }: RefusedPeer, cause?: string): void {
    this.#counts.set(reason, this.count(reason) + 1);
    const nowMs = this.#clock.monotonicMs();
    const key = this.#keyOf(`${reason} ${address} ${relation}`, nowMs);
    const told = this.#told.get(key);
    if (told !== undefined && nowMs - told.atMs < refusalIntervalMs) {
      told.leftOutCount += 1;
      return;
    }
    this.#told.set(key, { atMs: nowMs, leftOutCount: 0 });
    this.#log.warn('neighbour-refused', {
      reason,
      ...(relation === undefined ? {} : { relation }),
      ...(address === undefined ? {} : { address }),
      ...(cause === undefined ? {} : { cause }),
      ...(told === undefined || told.leftOutCount === 0 ? {} : { leftOutCount: told.leftOutCount }),
    });
  }

  /** A handshake was given up for another one. */
  addGivenUp(): void {
    const reason = 'too-many-handshakes';
    const count = this.count(reason) + 1;
    this.#counts.set(reason, count);
    if (count % givenUpPerLine === 1) this.#log.warn('neighbour-refused', { reason, count });
  }

  count(reason: RefusalReason): number {
    return this.#counts.get(reason) ?? 0;
  }

  get total(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  #keyOf(kind: string, nowMs: number): string {
    if (this.#told.has(kind)) return kind;
    if (this.#told.size >= refusalKindsMax) {
      for (const [key, { atMs }] of this.#told) {
        if (nowMs - atMs >= refusalIntervalMs) this.#told.delete(key);
      }
    }
    return this.#told.size < refusalKindsMax ? kind : otherPeers;
  }
}

/**
 * Accepts neighbours over mutual TLS 1.3. Trust is asked for twice: OpenSSL checks the chain to a pinned authority
 * during the handshake, `relationOf` then name, validity, revocation and relation. When trust changes, the secure
 * context is swapped and connections of whoever is trusted no longer are cut; all others go on.
 *
 * Handshakes under way are bounded apart from connections (OpenHandshakes), so that strangers take no neighbour's place.
 *
 *   TCP --handshake, timeout--> chain verified --relationOf, roleOf, maxima--> onNeighbour
 *    \------------------------------\----------------------\----refused, counted----> closed
 */
export class NeighbourListener {
  readonly #options: NeighbourListenerOptions;
  readonly #refusals: Refusals;
  readonly #onNeighbour: (socket: TLSSocket, neighbour: Neighbour) => void;
  readonly #handshakes: OpenHandshakes;
  readonly #connections = new Map<TLSSocket, Neighbour & { readonly certificate: Uint8Array }>();
  #server: Server | undefined;
  #material: TlsMaterial | undefined;
  #cancelOnChange: Cancel = () => {};

  constructor(
    deps: {
      readonly refusals: Refusals;
      readonly onNeighbour: (socket: TLSSocket, neighbour: Neighbour) => void;
    },
    options: NeighbourListenerOptions,
  ) {
    this.#refusals = deps.refusals;
    this.#onNeighbour = deps.onNeighbour;
    this.#options = options;
    this.#handshakes = new OpenHandshakes(options, () => {
      this.#refusals.addGivenUp();
    });
  }

  /** Where it listens; undefined while it does not. */
  get server(): NetServer | undefined {
    return this.#server;
  }

  /** @throws MqttError `mqtt-listen-failed` */
  async start(): Promise<void> {
    const { identity, host, port, handshakeTimeoutMs } = this.#options;
    this.#material = identity.material();
    const server = createServer(
      {
        ...contextOf(this.#material),
        requestCert: true,
        rejectUnauthorized: true,
        handshakeTimeout: handshakeTimeoutMs,
        noDelay: true,
      },
      (socket) => {
        this.#accept(socket);
      },
    );
    server.on('connection', (socket: Socket) => {
      this.#handshakes.begin(socket);
    });
    server.on('tlsClientError', (error, socket) => {
      // A chain that does not verify shows as a hang-up only.
      const cause = socket.authorizationError ?? error.message;
      const address = socket.remoteAddress;
      this.#refusals.add('handshake-failed', { address }, String(cause));
      socket.destroy();
    });
    await listen(server, host, port);
    this.#server = server;
    this.#cancelOnChange = identity.onChange(() => {
      this.#onTrustChange();
    });
    // What changed while the socket was being opened.
    this.#onTrustChange();
  }

  /** Stops accepting; `closed` resolves when the last connection is gone. */
  stop(): { readonly closed: Promise<void> } {
    const server = this.#server;
    this.#server = undefined;
    this.#cancelOnChange();
    if (server === undefined) return { closed: Promise.resolve() };
    return {
      closed: new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
      }),
    };
  }

  #accept(socket: TLSSocket): void {
    // Errors of a socket that is refused below have no other listener.
    socket.on('error', () => {});
    this.#handshakes.end(socket);
    const { identity, roleOf, packetBytesMax } = this.#options;
    const certificate = socket.getPeerX509Certificate()?.raw;
    const relation = certificate === undefined ? undefined : identity.relationOf(certificate);
    if (certificate === undefined || relation === undefined) {
      this.#refuse(socket, 'unknown-peer');
      return;
    }
    const role = roleOf(relation);
    if (role === undefined) {
      this.#refuse(socket, 'no-role', relation);
      return;
    }
    if (!this.#hasRoomFor(relation)) {
      this.#refuse(socket, 'too-many-connections', relation);
      return;
    }
    const neighbour = { relation, role, address: socket.remoteAddress };
    this.#connections.set(socket, { ...neighbour, certificate });
    socket.on('close', () => {
      this.#connections.delete(socket);
    });
    guardPacketSize(socket, packetBytesMax, () => {
      this.#refusals.add('packet-too-large', neighbour);
    });
    this.#onNeighbour(socket, neighbour);
  }

  #hasRoomFor(relation: string): boolean {
    const { connectionsMax, connectionsPerNeighbourMax } = this.#options;
    if (this.#connections.size >= connectionsMax) return false;
    const own = [...this.#connections.values()].filter((each) => each.relation === relation);
    return own.length < connectionsPerNeighbourMax;
  }

  #onTrustChange(): void {
    const { identity, roleOf } = this.#options;
    const material = identity.material();
    if (material !== this.#material) {
      this.#material = material;
      this.#server?.setSecureContext(contextOf(material));
    }
    for (const [socket, { relation, role, certificate }] of this.#connections) {
      const isTrusted =
        identity.relationOf(certificate, 'live') === relation && roleOf(relation) === role;
      if (!isTrusted) this.#refuse(socket, 'trust-withdrawn', relation);
    }
  }

  #refuse(socket: TLSSocket, reason: RefusalReason, relation?: string): void {
    this.#refusals.add(reason, { relation, address: socket.remoteAddress });
    socket.destroy();
  }
}

/** What both sides of a connection between sites give to Node's TLS. */
export function contextOf(material: TlsMaterial): {
  cert: string;
  key: string;
  ca: string[];
  crl?: string[];
  minVersion: 'TLSv1.3';
  maxVersion: 'TLSv1.3';
} {
  return {
    cert: material.cert,
    key: material.key,
    ca: [...material.ca],
    ...(material.crl.length === 0 ? {} : { crl: [...material.crl] }),
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
  };
}
