import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

import type { WireRecording } from './tls-transcript.ts';

/** What a link does to each direction of every connection. */
export interface LinkQuality {
  readonly oneWayMs: number;
  /** Bytes a second each way; Infinity: as fast as it goes. */
  readonly bytesPerSecond: number;
  /** Of this part of the segments the first copy is lost: all that follow wait for the retransmission. */
  readonly lossRatio: number;
  /** The sender's retransmission time-out; Linux has 200 ms at least (RFC 6298 asks for 1 s). */
  readonly retransmitMs: number;
}

export const perfectLink: LinkQuality = {
  oneWayMs: 0,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  lossRatio: 0,
  retransmitMs: 200,
};

export interface ProxyOptions {
  /** Whether what both ends send is kept, for as long as the proxy lives. Default false. */
  readonly records?: boolean;
}

/** Decides what is lost: the same in each run. */
const lossSeed = 7;

/** What a router between two sites would hold; beyond it the sender's kernel holds the rest. */
const queuedBytesMax = 16 * 1_024;
const segmentBytes = 1_448;

/**
 * A TCP connection's way between two hops, in this process, on loopback. It can be slow, lossy, cut (connections end,
 * new ones are refused) or half-open (connections stay and what is sent on them goes nowhere, both ways).
 */
export class TcpProxy implements AsyncDisposable {
  quality: LinkQuality = perfectLink;
  readonly #targetPort: number;
  readonly #random: () => number;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  readonly #recordings: WireRecording[] = [];
  readonly #records: boolean;
  #port = 0;
  #swallowsNew = false;

  private constructor(targetPort: number, { records = false }: ProxyOptions) {
    this.#targetPort = targetPort;
    this.#random = uniform(lossSeed);
    this.#records = records;
    this.#server = createServer({ noDelay: true }, (socket) => {
      this.#accept(socket);
    });
  }

  /** Before the server on `targetPort` of 127.0.0.1. */
  static async start(targetPort: number, options: ProxyOptions = {}): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort, options);
    await proxy.#listen();
    return proxy;
  }

  get port(): number {
    return this.#port;
  }

  /** What both ends of every connection have sent; only with `records`. */
  get recordings(): readonly WireRecording[] {
    return this.#recordings;
  }

  get connectionCount(): number {
    return this.#pairs.size;
  }

  /** Ends every connection; new ones are refused until {@link restore}. */
  async cut(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#endAll();
    await closed;
  }

  async restore(): Promise<void> {
    await this.#listen();
  }

  /** From now on everything is accepted and nothing arrives, on new connections too. */
  swallow(): void {
    this.#swallowsNew = true;
    for (const pair of this.#pairs) pair.swallow();
  }

  /** New connections work again; those that swallowed do for as long as their ends believe in them. */
  mend(): void {
    this.#swallowsNew = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.cut();
  }

  async #listen(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  #accept(near: Socket): void {
    const far = connect({ port: this.#targetPort, host: '127.0.0.1', noDelay: true });
    const pair = new Pair(near, far, () => this.quality, this.#random);
    this.#pairs.add(pair);
    if (this.#swallowsNew) pair.swallow();
    if (this.#records) this.#recordings.push(new Recording(near, far));
    pair.whenGone(() => {
      this.#pairs.delete(pair);
    });
  }

  #endAll(): void {
    for (const pair of this.#pairs) pair.end();
  }
}

/** What the ends of one connection have sent so far. */
class Recording implements WireRecording {
  readonly #fromClient: Buffer[] = [];
  readonly #fromServer: Buffer[] = [];

  constructor(client: Socket, server: Socket) {
    client.on('data', (chunk: Buffer) => {
      this.#fromClient.push(chunk);
    });
    server.on('data', (chunk: Buffer) => {
      this.#fromServer.push(chunk);
    });
  }

  get fromClient(): Buffer {
    return Buffer.concat(this.#fromClient);
  }

  get fromServer(): Buffer {
    return Buffer.concat(this.#fromServer);
  }
}

/** One connection: both ends and both directions. */
class Pair {
  readonly #ends: readonly [Socket, Socket];
  readonly #directions: readonly Direction[];
  #isSwallowing = false;

  constructor(near: Socket, far: Socket, quality: () => LinkQuality, random: () => number) {
    this.#ends = [near, far];
    this.#directions = [
      new Direction(near, far, quality, random),
      new Direction(far, near, quality, random),
    ];
    for (const socket of this.#ends) {
      // The other end learns of it by the close.
      socket.on('error', () => {});
      socket.once('close', () => {
        if (!this.#isSwallowing) this.end();
      });
    }
  }

  whenGone(act: () => void): void {
    for (const socket of this.#ends) {
      socket.once('close', () => {
        if (this.#ends.every(({ closed }) => closed)) act();
      });
    }
  }

  /** Half-open: what one end says does not arrive at the other, its end neither. */
  swallow(): void {
    this.#isSwallowing = true;
    for (const direction of this.#directions) direction.swallow();
  }

  end(): void {
    for (const direction of this.#directions) direction.swallow();
    for (const socket of this.#ends) socket.destroy();
  }
}

/** What one end sends, on its way to the other: a queue with the time at which each segment arrives. */
class Direction {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #quality: () => LinkQuality;
  readonly #random: () => number;
  #queued: { readonly bytes: Buffer; readonly arrivesAtMs: number }[] = [];
  #queuedBytes = 0;
  #linkFreeAtMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #isSwallowing = false;

  constructor(from: Socket, to: Socket, quality: () => LinkQuality, random: () => number) {
    this.#from = from;
    this.#to = to;
    this.#quality = quality;
    this.#random = random;
    from.on('data', (chunk: Buffer) => {
      this.#take(chunk);
    });
  }

  swallow(): void {
    this.#isSwallowing = true;
    this.#queued = [];
    clearTimeout(this.#timer);
    this.#from.resume();
  }

  #take(chunk: Buffer): void {
    if (this.#isSwallowing) return;
    for (let from = 0; from < chunk.length; from += segmentBytes) {
      const bytes = chunk.subarray(from, from + segmentBytes);
      this.#queued.push({ bytes, arrivesAtMs: this.#arrivalOf(bytes) });
      this.#queuedBytes += bytes.length;
    }
    if (this.#queuedBytes > queuedBytesMax && this.#quality() !== perfectLink) this.#from.pause();
    this.#deliver();
  }

  #arrivalOf(bytes: Buffer): number {
    const { bytesPerSecond, lossRatio, retransmitMs, oneWayMs } = this.#quality();
    const sentAtMs = Math.max(performance.now(), this.#linkFreeAtMs);
    const stallMs = lossRatio > 0 && this.#random() < lossRatio ? retransmitMs : 0;
    this.#linkFreeAtMs = sentAtMs + stallMs + (bytes.length / bytesPerSecond) * 1_000;
    return this.#linkFreeAtMs + oneWayMs;
  }

  #deliver(): void {
    clearTimeout(this.#timer);
    const nowMs = performance.now();
    for (;;) {
      const next = this.#queued[0];
      if (next === undefined) break;
      if (next.arrivesAtMs > nowMs) {
        this.#timer = setTimeout(() => {
          this.#deliver();
        }, next.arrivesAtMs - nowMs);
        break;
      }
      this.#queued.shift();
      this.#queuedBytes -= next.bytes.length;
      this.#to.write(next.bytes);
    }
    if (this.#queuedBytes <= queuedBytesMax) this.#from.resume();
  }
}

/** Park and Miller's generator: the same faults in each run. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 16_807) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}
