import type { Server } from 'node:net';

import { MqttError } from './mqtt-transport.ts';

/**
 * Resolves once `server` listens.
 * @throws MqttError `mqtt-listen-failed`, for instance when another process has the port.
 */
export async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (cause) {
    throw new MqttError(
      'mqtt-listen-failed',
      `cannot listen on ${host}:${port}: choose another port or stop what uses it`,
      { cause, context: { host, port } },
    );
  }
}

/** `host:port` of a server that listens; undefined for any other. IPv6 addresses in brackets. */
export function hostAndPortOf(server: Server | undefined): string | undefined {
  const address = server?.address();
  if (address === null || address === undefined || typeof address !== 'object') return undefined;
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `${host}:${address.port}`;
}
