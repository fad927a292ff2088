import { isIPv6, type Socket } from 'node:net';

export interface HandshakeBounds {
  /** Connections whose handshake is not over, in all. */
  readonly handshakesMax: number;
  /** Those from one address, or one IPv6 network of 64 bits: who has one address of it has all. */
  readonly handshakesPerAddressMax: number;
}

/** Hextets of an IPv6 address that name its network. */
const networkHextets = 4;
const hextets = 8;

/**
 * TCP connections of peers of whom nothing is known yet. One more than the bounds allow takes the place of the oldest from
 * the same address, or of the address that has most: whoever opens connections and says nothing is in nobody's way, as a
 * neighbour's handshake is over in a few round trips.
 */
export class OpenHandshakes {
  readonly #bounds: HandshakeBounds;
  readonly #onGivenUp: () => void;
  /** By network, then by the peer's address and port, which TCP and TLS socket have in common; the oldest first. */
  readonly #networks = new Map<string, Map<string, Socket>>();
  #count = 0;

  /** `onGivenUp` is called for each that is closed to make room. */
  constructor(bounds: HandshakeBounds, onGivenUp: () => void = () => {}) {
    this.#bounds = bounds;
    this.#onGivenUp = onGivenUp;
  }

  /** A TCP connection that was accepted. */
  begin(socket: Socket): void {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined) {
      // Reset already: its end was told before anyone could listen, and its place would never be given back.
      socket.destroy();
      return;
    }
    const { handshakesMax, handshakesPerAddressMax } = this.#bounds;
    const network = networkOf(remoteAddress);
    const ofNetwork = this.#networks.get(network)?.size ?? 0;
    if (ofNetwork >= handshakesPerAddressMax) this.#giveUpOldestOf(network);
    else if (this.#count >= handshakesMax) this.#giveUpOldestOf(this.#largestNetwork());
    const peer = peerOf(socket);
    const sockets = this.#networks.get(network) ?? new Map<string, Socket>();
    this.#networks.set(network, sockets.set(peer, socket));
    this.#count += 1;
    socket.once('close', () => {
      if (this.#networks.get(network)?.get(peer) === socket) this.#remove(network, peer);
    });
  }

  /** The TCP or TLS socket of a peer that has proved who it is. */
  end(socket: Socket): void {
    if (socket.remoteAddress !== undefined) {
      this.#remove(networkOf(socket.remoteAddress), peerOf(socket));
    }
  }

  #largestNetwork(): string {
    let largest = '';
    let most = 0;
    for (const [network, { size }] of this.#networks) {
      if (size > most) [largest, most] = [network, size];
    }
    return largest;
  }

  #giveUpOldestOf(network: string): void {
    const [oldest] = this.#networks.get(network) ?? [];
    if (oldest === undefined) return;
    const [peer, socket] = oldest;
    this.#remove(network, peer);
    socket.destroy();
    this.#onGivenUp();
  }

  #remove(network: string, peer: string): void {
    const sockets = this.#networks.get(network);
    if (sockets?.delete(peer) !== true) return;
    this.#count -= 1;
    if (sockets.size === 0) this.#networks.delete(network);
  }
}

/** What connections are counted by: an IPv4 address, also one inside IPv6, or the first 64 bits of an IPv6 address. */
export function networkOf(address: string): string {
  const [plain = ''] = address.split('%');
  if (!isIPv6(plain)) return plain;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(plain)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = '', tail] = plain.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: hextets - before.length - after.length }, () => '0');
  return [...before, ...zeros, ...after].slice(0, networkHextets).join(':');
}

function peerOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
