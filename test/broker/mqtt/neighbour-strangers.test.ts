import { connect } from 'node:net';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { NeighbourListenerOptions } from '../../../broker/mqtt/neighbour-listener.ts';
import { eventually } from '../../support/eventually.ts';
import { Federation } from '../../support/federation.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';

const timeoutMs = 20_000;
const strangerAddresses = 9;
const strangersEach = 40;

let federation: Federation;
beforeEach(() => {
  federation = new Federation();
});
afterEach(async () => {
  await federation.close();
});

/** A consumer, and its producer's broker. */
async function neighbours(options: Partial<NeighbourListenerOptions> = {}) {
  const p = await makeSite(federation.parent, 'site-p', { listen: ['127.0.0.1:8883'] });
  const c = await makeSite(federation.parent, 'site-c');
  await makeNeighbours('p-c', p, c);
  const broker = await federation.broker(await federation.identity(p), options);
  return { broker, consumer: await federation.identity(c) };
}

/** Opens a connection that says nothing, and another one as soon as that is closed; `seen` counts them. */
function keepOpening(port: number, localAddress: string, seen: () => void): void {
  let isOver = false;
  const open = (): void => {
    if (isOver) return;
    const socket = connect({ host: '127.0.0.1', port, localAddress });
    socket.on('error', () => {});
    socket.on('connect', seen);
    socket.on('close', open);
    federation.onClose(() => {
      isOver = true;
      socket.destroy();
    });
  };
  open();
}

test('strangers that open connections without end keep no neighbour out', async () => {
  // No handshake times out meanwhile: what makes room is not the time.
  const { broker, consumer } = await neighbours({ handshakeTimeoutMs: 60_000 });
  const port = Number(new URL(broker.neighbourUrl).port);
  let openedCount = 0;
  for (let address = 0; address < strangerAddresses; address += 1) {
    for (let count = 0; count < strangersEach; count += 1) {
      keepOpening(port, `127.0.0.${address + 2}`, () => {
        openedCount += 1;
      });
    }
  }
  await eventually(() => openedCount > strangerAddresses * strangersEach, { timeoutMs });
  const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
  await eventually(() => client.isConnected, { timeoutMs });
  expect(broker.refusals.count('too-many-handshakes')).toBeGreaterThan(0);
});

test('neighbours have a bounded number of connections in all', async () => {
  const { broker, consumer } = await neighbours({ connectionsMax: 1 });
  const first = await federation.client(consumer, 'p-c', broker.neighbourUrl);
  await eventually(() => first.isConnected, { timeoutMs });
  const second = await federation.client(consumer, 'p-c', broker.neighbourUrl);
  await eventually(() => broker.refusals.count('too-many-connections') > 0, { timeoutMs });
  expect([first.isConnected, second.isConnected]).toEqual([true, false]);
});
