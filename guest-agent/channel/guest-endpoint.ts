import { chmodSync, rmSync } from 'node:fs';
import { createServer, connect, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls';

import {
  formatChannelAddress,
  parseChannelAddress,
  type ChannelAddress,
} from '../../common/channel/channel-address.ts';
import { ChannelError } from '../../common/channel/channel-error.ts';
import { readChannelTls } from '../../common/channel/tls-files.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { systemErrorCode } from '../../common/runtime/operating-error.ts';
import type { Service } from '../../common/runtime/service.ts';
import { CharacterDevice } from './character-device.ts';

/** Sockets that may be open at once; only one is the host's, the others have said no valid hello yet. */
const connectionsMax = 8;
/** A TLS handshake that takes longer is given up. */
const handshakeMaxMs = 10_000;
/** A device that can't be opened, or was closed, is opened again after this. */
const reopenAfterMs = 200;

export interface GuestEndpointOptions {
  /** `unix:PATH`, `virtio:PATH` or `tcp:HOST:PORT`. */
  readonly address: string;
  /** With tcp: ca.pem, cert.pem, key.pem. */
  readonly tlsDirectory?: string;
}

/**
 * The guest's end of a channel address: listens, or holds the device, and hands every stream that comes to `accept`.
 * A unix socket is for its owner alone; one that nobody listens on any more is replaced.
 */
export class GuestEndpoint implements Service {
  readonly name = 'guest-endpoint';
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: GuestEndpointOptions;
  readonly #accept: (stream: Duplex) => void;
  #server: Server | undefined;
  #device: CharacterDevice | undefined;
  #cancelReopen: Cancel = () => {};
  #isStopped = false;
  #address: ChannelAddress | undefined;

  constructor(
    deps: { readonly clock: Clock; readonly log: Log },
    options: GuestEndpointOptions,
    accept: (stream: Duplex) => void,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    this.#accept = accept;
  }

  /** Where a host can dial, with the port that the system chose; undefined before the start. */
  get address(): string | undefined {
    return this.#address === undefined ? undefined : formatChannelAddress(this.#address);
  }

  /** @throws ChannelError `address-invalid`, `tls-files-unreadable`, `listen-failed` */
  async start(): Promise<void> {
    const address = parseChannelAddress(this.#options.address);
    this.#address = address;
    switch (address.kind) {
      case 'unix':
        await removeDeadSocket(address.path);
        this.#server = createServer();
        this.#server.on('connection', this.#acceptSocket);
        await listen(this.#server, { path: address.path }, this.#options.address);
        chmodSync(address.path, 0o600);
        break;
      case 'tcp': {
        const server = createTlsServer({
          ...readChannelTls(this.#options.tlsDirectory),
          handshakeTimeout: handshakeMaxMs,
        });
        this.#server = server;
        // Before the server's own listener, which begins the handshake.
        server.prependListener('connection', () => {
          this.#renewCertificate(server);
        });
        this.#server.on('secureConnection', this.#acceptSocket);
        this.#server.on('tlsClientError', (error: Error) => {
          this.#log.warn('guest-channel-tls-refused', { reason: error.message });
        });
        await listen(
          this.#server,
          { host: address.host, port: address.port },
          this.#options.address,
        );
        const bound = this.#server.address();
        if (typeof bound === 'object' && bound !== null) {
          this.#address = { ...address, port: bound.port };
        }
        break;
      }
      case 'virtio':
        this.#openDevice(address.path);
        break;
    }
    if (this.#server !== undefined) this.#server.maxConnections = connectionsMax;
  }

  /** Each connection is made with the files as they are now; while they can't be used, with those of before. */
  #renewCertificate(server: TlsServer): void {
    try {
      server.setSecureContext(readChannelTls(this.#options.tlsDirectory));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.warn('guest-channel-tls-files-refused', { reason });
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelReopen();
    this.#device?.destroy();
    const server = this.#server;
    this.#server = undefined;
    // Resolves when the streams handed out are closed too, which is their owner's part.
    if (server === undefined) return;
    await new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
    });
  }

  readonly #acceptSocket = (socket: Socket): void => {
    socket.setNoDelay(true);
    this.#accept(socket);
  };

  /** The port may appear later than the agent (udev) and go away with the device; opening is tried for ever. */
  #openDevice(path: string): void {
    if (this.#isStopped) return;
    try {
      const device = new CharacterDevice({ clock: this.#clock }, path);
      this.#device = device;
      device.once('close', () => {
        this.#reopenLater(path);
      });
      this.#accept(device);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.warn('guest-channel-device-unavailable', {
        path,
        reason,
        retryAfterMs: reopenAfterMs,
      });
      this.#reopenLater(path);
    }
  }

  #reopenLater(path: string): void {
    this.#cancelReopen = this.#clock.after(reopenAfterMs, () => {
      this.#openDevice(path);
    });
  }
}

function listen(
  server: Server,
  where: { readonly path: string } | { readonly host: string; readonly port: number },
  address: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      const message = `cannot listen on ${address}: ${cause.message}; is another agent running, and may this user?`;
      const retryable = systemErrorCode(cause) === 'EADDRINUSE';
      reject(new ChannelError('listen-failed', message, { cause, retryable }));
    };
    server.once('error', fail);
    server.listen(where, () => {
      server.removeListener('error', fail);
      resolve();
    });
  });
}

/** A socket file whose listener died refuses connections, and can be removed without harm. */
async function removeDeadSocket(path: string): Promise<void> {
  const code = await new Promise<string | undefined>((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error) => {
      resolve(systemErrorCode(error));
    });
  });
  if (code === 'ECONNREFUSED') rmSync(path, { force: true });
}
