import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { PacketSizeGuard } from '../../../broker/mqtt/packet-size-guard.ts';
import type { TlsIdentity } from '../../../common/identity/tls-identity.ts';
import { Federation } from '../../support/federation.ts';
import { mqttPackets, packet } from '../../support/raw-mqtt.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';

let federation: Federation;
beforeEach(() => {
  federation = new Federation();
});
afterEach(async () => {
  await federation.close();
});

/** A consumer's connection to its producer's broker. */
async function consumerOf(): Promise<{ broker: EmbeddedBroker; socket: TLSSocket }> {
  const p = await makeSite(federation.parent, 'site-p', { listen: ['127.0.0.1:8883'] });
  const c = await makeSite(federation.parent, 'site-c');
  await makeNeighbours('p-c', p, c);
  const broker = await federation.broker(await federation.identity(p));
  const socket = await connectRaw(await federation.identity(c), broker.neighbourUrl);
  return { broker, socket };
}

/** A neighbour's connection that sends any bytes; resolves after CONNACK. */
async function connectRaw(identity: TlsIdentity, url: string): Promise<TLSSocket> {
  const { cert, key, ca } = identity.material();
  const socket = connect({
    host: '127.0.0.1',
    port: Number(new URL(url).port),
    cert,
    key,
    ca: [...ca],
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => {});
  socket.write(mqttPackets.connect('raw-client'));
  await once(socket, 'data');
  return socket;
}

/** Different ones, each of few bytes. */
function filters(root: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${root}/${index.toString(36)}`);
}

/** A reset, which a broker's refusal of unread bytes is, counts too. */
function whenClosed(socket: TLSSocket): Promise<void> {
  return new Promise((resolve) => {
    socket.once('close', () => {
      resolve();
    });
  });
}

describe('one packet of a neighbour', () => {
  test('a SUBSCRIBE over 16 KiB ends the connection before any of its filters is looked at', async () => {
    const { broker, socket } = await consumerOf();
    const closed = whenClosed(socket);
    socket.write(mqttPackets.subscribe(filters('n/p-c/down', 150_000)));
    await closed;
    expect([broker.refusals.total, broker.refusals.count('packet-too-large')]).toEqual([1, 1]);
  });

  test.each([
    ['filters that it may not have', 'n/p-d/down', 'subscribe-not-allowed'],
    ['more filters than a client has', 'n/p-c/down', 'protocol'],
  ] as const)(
    'a SUBSCRIBE with %s is one refusal, not one for each',
    async (_title, root, reason) => {
      const { broker, socket } = await consumerOf();
      const closed = whenClosed(socket);
      socket.write(mqttPackets.subscribe(filters(root, 800)));
      await closed;
      expect([broker.refusals.total, broker.refusals.count(reason)]).toEqual([1, 1]);
    },
  );

  test('a PUBLISH may be as large as the maximum, another packet 16 KiB, wherever segments end', () => {
    const publish = packet(0x30, new Uint8Array(100_000));
    const subscribe = packet(0x82, new Uint8Array(16_384));
    const stream = Buffer.concat([publish, subscribe, publish, subscribe]);
    for (const segmentBytes of [1, 3, 16_384, stream.length]) {
      const guard = new PacketSizeGuard(100_000);
      let refusals = 0;
      for (let at = 0; at < stream.length; at += segmentBytes) {
        if (!guard.accepts(stream.subarray(at, at + segmentBytes))) refusals += 1;
      }
      expect(refusals).toBe(0);
    }
    for (const [header, bytes] of [
      [0x30, 100_001],
      [0x82, 16_385],
      [0x10, 16_385],
    ] as const) {
      const announcement = packet(header, new Uint8Array(bytes)).subarray(0, 5);
      expect(new PacketSizeGuard(100_000).accepts(announcement)).toBe(false);
    }
  });
});
