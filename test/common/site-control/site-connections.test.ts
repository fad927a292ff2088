import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

import { expect, test } from 'vitest';

import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SiteConnections } from '../../../common/site-control/site-connections.ts';
import { siteControlServerDefault } from '../../../common/site-control/site-control-server.ts';
import { TestIdentity, TestSite } from '../../support/control-site.ts';

test('a connection that was reset before it is looked at takes no place among the handshakes', async () => {
  const identity = new TestIdentity(await TestSite.make('source'), {});
  const connections = new SiteConnections(
    { identity, clock: new SystemClock(), log: silentLog },
    { ...siteControlServerDefault, handshakesMax: 2 },
  );
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
    const closed = new Promise((resolve) => {
      socket.once('close', resolve);
    });
    peer.resetAndDestroy();
    socket.resume();
    await closed;
    expect(socket.remoteAddress).toBeUndefined();
    connections.acceptHandshake(socket);
  }
  const living = [await accepted(), await accepted(), await accepted()];
  for (const { socket } of living) connections.acceptHandshake(socket);
  expect(living.map(({ socket }) => socket.destroyed)).toEqual([false, false, true]);
  for (const { peer } of living) peer.destroy();
  server.close();
  await once(server, 'close');
});
