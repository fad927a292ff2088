import type { AedesOptions, Client, PublishPacket } from 'aedes';

import type { Clock } from '../../common/runtime/clock.ts';
import type { RefusalReason, Refusals } from './neighbour-listener.ts';
import { mayPublish, mayRead, type Neighbour } from './neighbour-rights.ts';
import { PublishPacer } from './publish-pacer.ts';

/** Filters of one neighbour's client; a relation needs four. */
const filtersPerClientMax = 64;

/**
 * What each client of the embedded broker may do, and how fast: by the socket that it came on, which is a local one or that of
 * a neighbour. Whoever steps over its rights is disconnected.
 */
export class ClientRights {
  readonly #clock: Clock | undefined;
  readonly #refusals: Refusals;
  readonly #localSockets = new WeakSet<object>();
  readonly #neighbours = new WeakMap<object, Neighbour>();
  /** By relation. */
  readonly #neighbourPacers = new Map<string, PublishPacer>();
  readonly #localPacers = new WeakMap<object, PublishPacer>();
  /** Why a connection ended: Aedes goes on with the packets, and filters of a packet, that it has read already. */
  readonly #refused = new WeakMap<object, Error>();

  /** With a clock the messages of each neighbour, and of each local client, pass at a bounded rate. */
  constructor(clock: Clock | undefined, refusals: Refusals) {
    this.#clock = clock;
    this.#refusals = refusals;
  }

  /** The socket is of this machine: its client may do anything. */
  addLocal(socket: object): void {
    this.#localSockets.add(socket);
  }

  /** The socket is of a neighbour, whose certificate was verified. */
  addNeighbour(socket: object, neighbour: Neighbour): void {
    this.#neighbours.set(socket, neighbour);
  }

  /** Local clients may do anything; a client that is neither local nor a known neighbour may do nothing. */
  handlers(): Partial<AedesOptions> {
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

  /** Why a message is not taken; undefined when it is. */
  publishRefusal(client: Client | null, packet: PublishPacket): Error | undefined {
    if (client === null || this.#isLocal(client)) return undefined;
    const neighbour = this.#neighbours.get(client.conn);
    if (neighbour === undefined || !mayPublish(neighbour, packet.topic)) {
      return this.#refuse('publish-not-allowed', client);
    }
    return packet.retain || packet.qos > 1 ? this.#refuse('protocol', client) : undefined;
  }

  /** Lets `go` run when the client's messages may pass. */
  pace(client: Client | null, go: () => void): void {
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
}

/** What a client has subscribed: Aedes keeps subscriptions by filter. */
export function filtersOf(client: Client): readonly string[] {
  const subscriptions: unknown = 'subscriptions' in client ? client.subscriptions : undefined;
  return typeof subscriptions === 'object' && subscriptions !== null
    ? Object.keys(subscriptions)
    : [];
}
