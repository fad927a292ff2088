import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type Socket } from 'node:net';

import { describe, expect, test } from 'vitest';

import type { SiteControlServerOptions } from '../../../common/site-control/site-control-server.ts';
import { siteEndpoint } from '../../../common/site-control/site-endpoint.ts';
import { TestIdentity } from '../../support/control-site.ts';
import {
  makeSites,
  moodEndpoint,
  onceEndpoint,
  startSource as startSourceOf,
} from '../../support/control-source.ts';
import { eventually } from '../../support/eventually.ts';
import {
  ControlNeighbour,
  rawRequest,
  RawConnection,
  SkewedClock,
} from '../../support/site-pair.ts';

const timeoutMs = 10_000;
const sites = await makeSites();
const { source, primary } = sites;
const startSource = (
  options: Partial<SiteControlServerOptions> & { readonly clock?: SkewedClock } = {},
) => startSourceOf(sites, options);
const primaryIdentity = () => new TestIdentity(primary, { 'to-primary': source });

describe('SiteControlClient', () => {
  test('repeats an idempotent request with the same idempotency key, so many times', async () => {
    await using running = await startSource();
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port);
    await expect(neighbour.client.call(moodEndpoint, { mood: 'busy' })).rejects.toMatchObject({
      peerCode: 'unavailable',
    });
    expect(running.keys).toHaveLength(3);
    expect(new Set(running.keys).size).toBe(1);
    expect(running.site.audit.outcomes()).toEqual(['unavailable', 'unavailable', 'unavailable']);
    await neighbour.client.call(moodEndpoint, { mood: 'good' });
    expect(new Set(running.keys).size).toBe(2);
  });

  test('repeats neither what is not idempotent nor what will not succeed', async () => {
    await using running = await startSource();
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port);
    await expect(neighbour.client.call(onceEndpoint, { mood: 'busy' })).rejects.toThrow(
      'unavailable',
    );
    expect(running.keys).toHaveLength(1);
    await expect(neighbour.client.call(moodEndpoint, { mood: 'bug' })).rejects.toThrow('internal');
    expect(running.keys).toHaveLength(2);
  });

  test('finds its neighbour again after a restart', async () => {
    await using running = await startSource();
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port, {
      retries: { initialMs: 20, maxMs: 100, attemptsMax: 20 },
    });
    await neighbour.client.call(siteEndpoint, {});
    await running.restart();
    expect(await neighbour.client.call(siteEndpoint, {})).toMatchObject({ name: 'source' });
  });

  test('says when a clock is wrong', async () => {
    const clock = new SkewedClock();
    await using running = await startSource({ clock });
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port);
    await neighbour.client.call(siteEndpoint, {});
    clock.skewS = 200;
    await expect(neighbour.client.call(siteEndpoint, {})).rejects.toMatchObject({
      peerCode: 'expired',
      message: expect.stringContaining('clocks'),
    });
    expect(running.site.audit.outcomes()).toEqual(['ok', 'expired']);
  });

  test('gives up on a neighbour that accepts and says nothing', async () => {
    await using silent = await fakeServer(() => {});
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', silent.port, {
      timeoutMs: 100,
      retries: { initialMs: 1, maxMs: 1, attemptsMax: 2 },
    });
    await expect(neighbour.client.call(siteEndpoint, {})).rejects.toMatchObject({
      code: 'timed-out',
    });
    expect(neighbour.audit.outcomes()).toEqual(['timed-out', 'timed-out']);
  });

  test('believes no answer without the neighbour’s signature for this request', async () => {
    await using running = await startSource();
    let genuine = '';
    {
      using connection = await RawConnection.open(primary, source, running.port);
      connection.write(rawRequest(primary, 'to-primary', running.port));
      await eventually(() => connection.answer?.status === 200, { timeoutMs });
      genuine = connection.received;
    }
    const answers = [
      genuine,
      genuine.replace(/signature: .*\r\n/, ''),
      'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}',
    ];
    for (const text of answers) {
      await using fake = await fakeServer((socket) => {
        socket.write(text);
      });
      await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', fake.port);
      await expect(neighbour.client.call(siteEndpoint, {})).rejects.toMatchObject({
        code: 'answer-unverified',
      });
      expect(neighbour.audit.outcomes()).toEqual(['answer-unverified']);
    }
  });

  test('reads no more of an answer than its bound', async () => {
    await using endless = await fakeServer((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n${'x'.repeat(20_000)}`);
    });
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', endless.port, {
      answerBytesMax: 10_000,
    });
    await expect(neighbour.client.call(siteEndpoint, {})).rejects.toMatchObject({
      code: 'answer-unknown',
    });
  });

  test('says which neighbour is not there', async () => {
    const running = await startSource();
    const { port } = running;
    await running[Symbol.asyncDispose]();
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', port);
    await expect(neighbour.client.call(siteEndpoint, {})).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('relation to-primary'),
    });
    expect(neighbour.audit.outcomes()).toEqual(['unreachable', 'unreachable', 'unreachable']);
  });
});

/** A TLS end with the certificate of `source` that treats each request as it likes. */
async function fakeServer(onRequest: (socket: Socket) => void) {
  const server = createServer({ cert: source.cert, key: source.key }, (request) => {
    onRequest(request.socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}
