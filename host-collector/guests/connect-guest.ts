import { connect, isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';

import { parseChannelAddress } from '../../common/channel/channel-address.ts';
import { ChannelError } from '../../common/channel/channel-error.ts';
import { readChannelTls } from '../../common/channel/tls-files.ts';

export interface GuestAddress {
  /** `unix:PATH`, `virtio:PATH` (QEMU's chardev socket of the port) or `tcp:HOST:PORT`. */
  readonly address: string;
  /** With tcp: ca.pem, cert.pem, key.pem. */
  readonly tlsDirectory?: string;
}

/**
 * Dials a guest once. With tcp the guest's certificate must be signed by ca.pem and be for HOST.
 * @throws ChannelError `address-invalid`, `tls-files-unreadable`, `connect-failed`; the signal's reason when aborted.
 */
export async function connectGuest(guest: GuestAddress, signal: AbortSignal): Promise<Duplex> {
  signal.throwIfAborted();
  const address = parseChannelAddress(guest.address);
  if (address.kind !== 'tcp') {
    return established(connect({ path: address.path }), 'connect', guest.address, signal);
  }
  const { host, port } = address;
  const servername = isIP(host) === 0 ? host : '';
  const tls = readChannelTls(guest.tlsDirectory);
  const socket = connectTls({ ...tls, host, port, servername });
  socket.setNoDelay(true);
  return established(socket, 'secureConnect', guest.address, signal);
}

function established(
  stream: Duplex,
  event: 'connect' | 'secureConnect',
  address: string,
  signal: AbortSignal,
): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      stream.destroy();
      reject(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
    const fail = (cause: Error): void => {
      signal.removeEventListener('abort', abort);
      const message = `cannot reach the guest at ${address}: ${cause.message}`;
      reject(new ChannelError('connect-failed', message, { cause, retryable: true }));
    };
    stream.once('error', fail);
    stream.once(event, () => {
      signal.removeEventListener('abort', abort);
      stream.removeListener('error', fail);
      resolve(stream);
    });
  });
}
