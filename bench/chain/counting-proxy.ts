import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/** Bytes inside TCP, TLS included, in both directions; headers of TCP and IP are not among them. */
export interface CountedBytes {
  readonly toDialled: number;
  readonly toDialler: number;
}

/** Passes connections on to a port of this machine and counts what goes through. */
export class CountingProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #targetPort: number;
  #toDialled = 0;
  #toDialler = 0;

  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = createServer({ noDelay: true }, (dialler) => {
      const dialled = connect({ host: '127.0.0.1', port: this.#targetPort, noDelay: true });
      this.#join(dialler, dialled);
      dialler.on('data', (chunk) => {
        this.#toDialled += chunk.length;
      });
      dialled.on('data', (chunk) => {
        this.#toDialler += chunk.length;
      });
    });
  }

  /** Listens on a free loopback port and returns it. */
  async start(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
    return address.port;
  }

  get bytes(): CountedBytes {
    return { toDialled: this.#toDialled, toDialler: this.#toDialler };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const closed = once(this.#server, 'close');
    this.#server.close();
    await closed;
  }

  #join(left: Socket, right: Socket): void {
    for (const [from, to] of [
      [left, right],
      [right, left],
    ] as const) {
      this.#sockets.add(from);
      from.pipe(to);
      // Either end may break at any time: the other is told by a connection that ends.
      from.on('error', () => {
        to.destroy();
      });
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }
}
