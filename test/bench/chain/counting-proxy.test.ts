import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';

import { describe, expect, test } from 'vitest';

import { CountingProxy } from '../../../bench/chain/counting-proxy.ts';
import { eventually } from '../../support/eventually.ts';

describe('a counting proxy', () => {
  test('passes bytes on both ways and counts each once', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', () => {
        socket.write('answer');
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await using proxy = new CountingProxy(port);
    const client = connect({ host: '127.0.0.1', port: await proxy.start() });
    client.write('ask');
    const [answer] = (await once(client, 'data')) as [Buffer];
    expect(answer.toString()).toBe('answer');
    expect(proxy.bytes).toEqual({ toDialled: 3, toDialler: 6 });
    client.destroy();
    const closed = once(server, 'close');
    server.close();
    await eventually(() => !server.listening, { timeoutMs: 5_000 });
    await closed;
  });
});
