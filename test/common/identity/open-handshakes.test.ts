import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { networkOf, OpenHandshakes } from '../../../common/identity/open-handshakes.ts';
import { eventually } from '../../support/eventually.ts';

const timeoutMs = 10_000;

async function closed(...sockets: readonly Socket[]): Promise<void> {
  await eventually(() => sockets.every((socket) => socket.closed), { timeoutMs });
}

describe('OpenHandshakes', () => {
  let givenUp: number;
  let clients: Socket[];
  let port: number;
  let end: (client: Socket) => void;
  let close: () => void;
  beforeEach(async () => {
    givenUp = 0;
    clients = [];
    const bounds = { handshakesMax: 5, handshakesPerAddressMax: 3 };
    const handshakes = new OpenHandshakes(bounds, () => {
      givenUp += 1;
    });
    const accepted = new Map<number, Socket>();
    const server = createServer((socket) => {
      socket.on('error', () => {});
      accepted.set(socket.remotePort ?? 0, socket);
      handshakes.begin(socket);
      // Tells the client that it has been counted.
      socket.write('x');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    ({ port } = address);
    end = (client) => {
      const socket = accepted.get(client.localPort ?? 0);
      if (socket !== undefined) handshakes.end(socket);
    };
    close = () => {
      server.close();
    };
  });
  afterEach(() => {
    for (const client of clients) client.destroy();
    close();
  });

  async function from(localAddress: string): Promise<Socket> {
    const client = connect({ host: '127.0.0.1', port, localAddress });
    client.on('error', () => {});
    clients.push(client);
    await once(client, 'data');
    return client;
  }

  test('of one address the oldest gives way', async () => {
    const [first] = [await from('127.0.0.2'), await from('127.0.0.2'), await from('127.0.0.2')];
    await from('127.0.0.2');
    await closed(first);
    expect([givenUp, clients.filter((each) => each.closed).length]).toEqual([1, 1]);
  });

  test('of all the oldest of the address with most gives way', async () => {
    const neighbour = await from('127.0.0.3');
    const first = await from('127.0.0.2');
    for (let count = 0; count < 2; count += 1) await from('127.0.0.2');
    await from('127.0.0.4');
    await from('127.0.0.5');
    await closed(first);
    expect([givenUp, neighbour.closed]).toEqual([1, false]);
  });

  test('one that is over, or was closed, takes no room', async () => {
    for (let count = 0; count < 10; count += 1) end(await from('127.0.0.2'));
    const kept = [await from('127.0.0.2'), await from('127.0.0.2'), await from('127.0.0.2')];
    for (const each of kept) end(each);
    expect([givenUp, clients.filter((each) => each.closed).length]).toEqual([0, 0]);
  });
});

test('a connection that was reset before it is looked at takes no place among the handshakes', async () => {
  let givenUp = 0;
  const handshakes = new OpenHandshakes({ handshakesMax: 2, handshakesPerAddressMax: 2 }, () => {
    givenUp += 1;
  });
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const accepted = async (): Promise<{ peer: Socket; socket: Socket }> => {
    const arrival = once(server, 'connection');
    const peer = connect(port, '127.0.0.1');
    peer.on('error', () => {});
    const [socket] = (await arrival) as [Socket];
    socket.on('error', () => {});
    return { peer, socket };
  };
  for (let count = 0; count < 5; count += 1) {
    const { peer, socket } = await accepted();
    const ended = new Promise((resolve) => {
      socket.once('close', resolve);
    });
    peer.resetAndDestroy();
    socket.resume();
    await ended;
    expect(socket.remoteAddress).toBeUndefined();
    handshakes.begin(socket);
  }
  const living = [await accepted(), await accepted()];
  for (const { socket } of living) handshakes.begin(socket);
  expect(givenUp).toBe(0);
  const third = await accepted();
  handshakes.begin(third.socket);
  expect(living.map(({ socket }) => socket.destroyed)).toEqual([true, false]);
  for (const { peer } of [...living, third]) peer.destroy();
  server.close();
  await once(server, 'close');
});

test.each([
  ['10.1.2.3', '10.1.2.3'],
  ['::ffff:10.1.2.3', '10.1.2.3'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
  ['2001:db8:1:2::6', '2001:db8:1:2'],
  ['2001:db8::6', '2001:db8:0:0'],
  ['::1', '0:0:0:0'],
  ['fe80::1%eth0', 'fe80:0:0:0'],
])('%s counts as %s', (address, network) => {
  expect(networkOf(address)).toBe(network);
});
