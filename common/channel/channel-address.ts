import { ChannelError } from './channel-error.ts';

/**
 * Where a guest channel is. `unix`: a socket that the agent listens on. `virtio`: in the guest the character device
 * of the port (`/dev/virtio-ports/NAME` or `/dev/vportNpM`), on the host QEMU's chardev socket of it. `tcp`: mutual
 * TLS 1.3.
 */
export type ChannelAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'virtio'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** sun_path of sockaddr_un has 108 bytes, the last of them zero. */
const socketPathBytesMax = 107;

/**
 * Parses `unix:PATH`, `virtio:PATH`, `tcp:HOST:PORT` (an IPv6 host in brackets; port 0 lets the system choose).
 * @throws ChannelError `address-invalid`, which says what to write instead.
 */
export function parseChannelAddress(text: string): ChannelAddress {
  const [, scheme, rest] = /^([a-z]+):(.*)$/s.exec(text) ?? [];
  switch (scheme) {
    case 'unix':
    case 'virtio':
      return { kind: scheme, path: parsePath(text, scheme, rest ?? '') };
    case 'tcp':
      return { kind: 'tcp', ...parseHostPort(text, rest ?? '') };
    case undefined:
    default:
      throw invalid(text, 'write unix:PATH, virtio:PATH or tcp:HOST:PORT');
  }
}

/** The text that {@link parseChannelAddress} makes this address from. */
export function formatChannelAddress(address: ChannelAddress): string {
  if (address.kind !== 'tcp') return `${address.kind}:${address.path}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}

function parsePath(text: string, scheme: 'unix' | 'virtio', path: string): string {
  if (!path.startsWith('/')) {
    throw invalid(text, `write the whole path: ${scheme}:/run/isobar/guest.sock`);
  }
  if (path.includes('\0')) throw invalid(text, 'remove the NUL character from the path');
  const byteCount = Buffer.byteLength(path);
  if (byteCount > socketPathBytesMax) {
    const rule = `the path has ${byteCount} bytes; a socket's may have ${socketPathBytesMax}: shorten it`;
    throw invalid(text, rule);
  }
  return path;
}

function parseHostPort(text: string, rest: string): { host: string; port: number } {
  const [, bracketed, plain, portText] =
    /^(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(rest) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || portText === undefined) {
    throw invalid(text, 'write tcp:HOST:PORT, as in tcp:10.0.0.7:7400 or tcp:[fd00::7]:7400');
  }
  const port = Number(portText);
  if (port > 65_535) throw invalid(text, 'take a port from 0 to 65535');
  return { host, port };
}

function invalid(text: string, rule: string): ChannelError {
  const shown = JSON.stringify(text.slice(0, 200));
  return new ChannelError('address-invalid', `channel address ${shown}: ${rule}`);
}
