import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

import { OpenHandshakes, type HandshakeBounds } from '../identity/open-handshakes.ts';
import type { TlsIdentity } from '../identity/tls-identity.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { NeighbourQuota, type RequestQuota } from './neighbour-quota.ts';

export interface ConnectionBounds extends HandshakeBounds, RequestQuota {
  /** Connections of one relation; one more is closed. */
  readonly connectionsPerRelationMax: number;
  /** An older connection ends with its next answer, so that certificates are looked at again. */
  readonly connectionAgeMaxMs: number;
}

/** What is known of one neighbour's connections. */
export interface Neighbour {
  readonly relation: string;
  readonly sockets: Set<TLSSocket>;
  readonly quota: NeighbourQuota;
  /** Requests that are being read or handled. */
  inFlight: number;
}

interface Connection {
  readonly neighbour: Neighbour;
  readonly certificate: Uint8Array;
  readonly openedAtMs: number;
}

/**
 * Whom each connection belongs to. A peer whose certificate belongs to no relation is cut at once, and so is one whose
 * certificate does no more after a change of the identity.
 */
export class SiteConnections {
  readonly #identity: TlsIdentity;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #bounds: ConnectionBounds;
  readonly #connections = new Map<TLSSocket, Connection>();
  /** Kept when the last connection ends: reconnecting must not refill a quota. One for each pinned neighbour at most. */
  readonly #neighbours = new Map<string, Neighbour>();
  readonly #handshakes: OpenHandshakes;

  constructor(
    dependencies: { readonly identity: TlsIdentity; readonly clock: Clock; readonly log: Log },
    bounds: ConnectionBounds,
  ) {
    this.#identity = dependencies.identity;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#bounds = bounds;
    this.#handshakes = new OpenHandshakes(bounds);
  }

  /** A TCP connection, before anything is known of its peer. */
  acceptHandshake(socket: Socket): void {
    this.#handshakes.begin(socket);
  }

  /** A TLS connection whose certificate is verified by TLS. */
  acceptConnection(socket: TLSSocket): void {
    this.#handshakes.end(socket);
    const certificate = socket.getPeerCertificate().raw;
    const relation =
      socket.authorized && certificate instanceof Uint8Array
        ? this.#identity.relationOf(certificate)
        : undefined;
    if (relation === undefined) {
      this.#log.warn('site-control-peer-unknown', { address: socket.remoteAddress ?? '' });
      socket.destroy();
      return;
    }
    const neighbour = this.#neighbourOf(relation);
    if (neighbour.sockets.size >= this.#bounds.connectionsPerRelationMax) {
      this.#log.warn('site-control-connections-exceeded', { relation });
      socket.destroy();
      return;
    }
    neighbour.sockets.add(socket);
    const openedAtMs = this.#clock.monotonicMs();
    this.#connections.set(socket, { neighbour, certificate, openedAtMs });
    socket.once('close', () => {
      neighbour.sockets.delete(socket);
      this.#connections.delete(socket);
    });
  }

  /** Whose connection it is; undefined for one that was never accepted or is cut. */
  neighbourOf(socket: Socket): Neighbour | undefined {
    return this.#connections.get(socket as TLSSocket)?.neighbour;
  }

  /** Whether the connection should end with the answer that is being written. */
  isOld(socket: Socket): boolean {
    const connection = this.#connections.get(socket as TLSSocket);
    if (connection === undefined) return true;
    const ageMs = this.#clock.monotonicMs() - connection.openedAtMs;
    return ageMs > this.#bounds.connectionAgeMaxMs;
  }

  /** Looks at every certificate again. */
  cutUntrusted(): void {
    for (const [socket, { neighbour, certificate }] of this.#connections) {
      if (this.#identity.relationOf(certificate, 'live') === neighbour.relation) continue;
      this.#log.warn('site-control-connection-cut', { relation: neighbour.relation });
      socket.destroy();
      this.#connections.delete(socket);
    }
  }

  #neighbourOf(relation: string): Neighbour {
    const known = this.#neighbours.get(relation);
    if (known !== undefined) return known;
    const neighbour: Neighbour = {
      relation,
      sockets: new Set(),
      quota: new NeighbourQuota(this.#bounds, this.#clock.monotonicMs()),
      inFlight: 0,
    };
    this.#neighbours.set(relation, neighbour);
    return neighbour;
  }
}
