import { createServer } from 'node:net';

/**
 * `preferredPort` of the loopback address if it is free, else one that is. Someone else may take it before it is used;
 * then whoever uses it says so.
 */
export async function findFreePort(preferredPort: number): Promise<number> {
  return (await tryPort(preferredPort)) ?? (await tryPort(0)) ?? preferredPort;
}

async function tryPort(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve(undefined);
    });
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const address = server.address();
      server.close(() => {
        resolve(typeof address === 'object' && address !== null ? address.port : undefined);
      });
    });
  });
}
