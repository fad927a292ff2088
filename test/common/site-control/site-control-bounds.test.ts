import { connect } from 'node:net';

import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { serve } from '../../../common/site-control/endpoint.ts';
import type { SiteControlError } from '../../../common/site-control/site-control-error.ts';
import type { SiteControlServerOptions } from '../../../common/site-control/site-control-server.ts';
import { siteEndpoint } from '../../../common/site-control/site-endpoint.ts';
import { TestIdentity, type TestSite } from '../../support/control-site.ts';
import {
  ask as askAs,
  canary,
  makeSites,
  moodEndpoint,
  refusal,
  startSource as startSourceOf,
} from '../../support/control-source.ts';
import { eventually } from '../../support/eventually.ts';
import { ControlNeighbour, rawRequest, RawConnection } from '../../support/site-pair.ts';

const timeoutMs = 10_000;
const sites = await makeSites();
const { source, primary, other } = sites;
const startSource = (options: Partial<SiteControlServerOptions> = {}) =>
  startSourceOf(sites, options);
const ask = (site: TestSite, port: number, text: string) => askAs(site, source, port, text);
const primaryIdentity = () => new TestIdentity(primary, { 'to-primary': source });
const otherIdentity = () => new TestIdentity(other, { 'to-other': source });

const bind = (answerSchema: z.ZodType) => () =>
  serve({ ...siteEndpoint, answerSchema }, () => Promise.resolve({}));

describe('bounds', () => {
  const patience = { headTimeoutMs: 200, requestTimeoutMs: 400, timeoutCheckMs: 50 };

  test('a head and a body that trickle are cut off, and so is a handshake that never ends', async () => {
    await using running = await startSource({ ...patience, handshakeTimeoutMs: 200 });
    using head = await RawConnection.open(primary, source, running.port);
    head.write('GET /v1/site HTTP/1.1\r\nhost: x\r\n');
    using body = await RawConnection.open(primary, source, running.port);
    const slow = rawRequest(primary, 'to-primary', running.port, {
      method: 'POST',
      path: '/v1/subscriptions',
      body: '{"kind":"standing"}',
    });
    body.write(slow.slice(0, -5));
    const handshake = connect(running.port, '127.0.0.1');
    let isHandshakeClosed = false;
    handshake.on('error', () => {});
    handshake.on('close', () => {
      isHandshakeClosed = true;
    });
    await eventually(() => head.isClosed && body.isClosed && isHandshakeClosed, { timeoutMs });
    expect(running.subscribed).toEqual([]);
    await eventually(() => running.site.audit.outcomes().includes('incomplete'), { timeoutMs });
    expect(
      await ask(primary, running.port, rawRequest(primary, 'to-primary', running.port)),
    ).toMatchObject({ status: 200 });
  });

  test('a flood beyond the quota affects only that neighbour, and fills no audit log', async () => {
    await using running = await startSource({ quota: { burst: 20, perSecond: 0.001 } });
    await using flooding = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port, {
      retries: { initialMs: 1, maxMs: 1, attemptsMax: 1 },
    });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 200 }, () => flooding.client.call(siteEndpoint, {})),
    );
    const answered = outcomes.filter(({ status }) => status === 'fulfilled');
    expect(answered).toHaveLength(20);
    const refused = outcomes.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []));
    expect(new Set(refused.map((error) => (error as SiteControlError).peerCode))).toEqual(
      new Set(['rate-limited']),
    );
    await using neighbour = new ControlNeighbour(otherIdentity(), 'to-other', running.port);
    for (let count = 0; count < 20; count += 1) {
      expect(await neighbour.client.call(siteEndpoint, {})).toMatchObject({ name: 'source' });
    }
    expect(
      running.site.audit.outcomes().filter((outcome) => outcome === 'rate-limited'),
    ).toHaveLength(1);
    expect(running.site.server.counts()).toMatchObject({ accepted: 40, dropped: 180 });
    // Neither does a new connection refill it.
    expect(
      await ask(primary, running.port, rawRequest(primary, 'to-primary', running.port)),
    ).toMatchObject({ status: 429 });
  });

  test('a flood over hours leaves the audit entries of others: what a neighbour adds to the log is bounded', async () => {
    await using running = await startSource({
      quota: { burst: 10_000, perSecond: 10_000 },
      requestsPerHourMax: 30,
      inFlightPerRelationMax: 1_000,
    });
    await using quiet = new ControlNeighbour(otherIdentity(), 'to-other', running.port);
    await quiet.client.call(siteEndpoint, {});
    await using flooding = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port, {
      retries: { initialMs: 1, maxMs: 1, attemptsMax: 1 },
    });
    await Promise.allSettled(
      Array.from({ length: 200 }, () => flooding.client.call(siteEndpoint, {})),
    );
    await quiet.client.call(siteEndpoint, {});
    const { events } = running.site.audit;
    const countOf = (relation: string) =>
      events.filter((event) => event.relation === relation).length;
    expect([countOf('to-other'), countOf('to-primary')]).toEqual([2, 31]);
    expect(events.find(({ outcome }) => outcome === 'rate-limited')).toMatchObject({
      relation: 'to-primary',
      object: '1 refused',
    });
  });

  test('a neighbour has so many connections and no more, and others still get theirs', async () => {
    await using running = await startSource({ connectionsPerRelationMax: 2 });
    using first = await RawConnection.open(primary, source, running.port);
    using second = await RawConnection.open(primary, source, running.port);
    using third = await RawConnection.open(primary, source, running.port);
    await eventually(() => third.isClosed, { timeoutMs });
    expect([first.isClosed, second.isClosed]).toEqual([false, false]);
    expect(
      await ask(other, running.port, rawRequest(other, 'to-other', running.port)),
    ).toMatchObject({ status: 200 });
  });

  test('connections that never begin TLS leave room for others', async () => {
    await using running = await startSource({ handshakesPerAddressMax: 3 });
    const sockets = Array.from({ length: 5 }, () => connect(running.port, '127.0.0.1'));
    let closedCount = 0;
    for (const socket of sockets) {
      socket.on('error', () => {});
      socket.on('close', () => {
        closedCount += 1;
      });
    }
    await eventually(() => closedCount === 2, { timeoutMs });
    for (const socket of sockets) socket.destroy();
    await eventually(() => closedCount === 5, { timeoutMs });
    const answer = async () =>
      ask(primary, running.port, rawRequest(primary, 'to-primary', running.port));
    const answered = await eventually(
      async () => {
        const each = await answer();
        return each !== 'closed' && each;
      },
      { timeoutMs },
    );
    expect(answered.status).toBe(200);
  });

  test('a handler that takes too long is answered for', async () => {
    await using running = await startSource({ handlerTimeoutMs: 100 });
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port, {
      retries: { initialMs: 1, maxMs: 1, attemptsMax: 1 },
    });
    await expect(neighbour.client.call(moodEndpoint, { mood: 'slow' })).rejects.toMatchObject({
      code: 'refused',
      peerCode: 'unavailable',
    });
  });

  test('stopping answers what is under way', async () => {
    const running = await startSource({ handlerTimeoutMs: 200 });
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port, {
      retries: { initialMs: 1, maxMs: 1, attemptsMax: 1 },
    });
    const slow = neighbour.client.call(moodEndpoint, { mood: 'slow' });
    slow.catch(() => {});
    await eventually(() => running.keys.length === 1, { timeoutMs });
    await running[Symbol.asyncDispose]();
    await expect(slow).rejects.toMatchObject({ peerCode: 'unavailable' });
  });
});

describe('what goes out', () => {
  test('errors reveal nothing: no canary in any answer, whatever the handler throws or returns', async () => {
    await using running = await startSource();
    using connection = await RawConnection.open(primary, source, running.port);
    const moods = ['good', 'bug', 'busy', 'talkative', canary];
    const statuses: number[] = [];
    for (const [index, mood] of moods.entries()) {
      connection.write(
        rawRequest(primary, 'to-primary', running.port, {
          method: 'POST',
          path: '/v1/mood',
          body: JSON.stringify({ mood, filler: canary }),
        }),
      );
      await eventually(
        () =>
          connection.received.split('HTTP/1.1 ').length === index + 2 &&
          connection.answer !== undefined,
        { timeoutMs },
      );
      statuses.push(connection.answer?.status ?? 0);
    }
    expect(statuses).toEqual([200, 500, 503, 200, 400]);
    const bytes = Buffer.from(canary);
    const forms = [
      canary,
      bytes.toString('base64').slice(0, 20),
      bytes.toString('hex'),
      'mood',
      'Error:',
      '/common/',
      'node:',
    ];
    for (const form of forms) expect(connection.received).not.toContain(form);
    expect(connection.received).not.toMatch(/^(?:server|date|x-powered-by):/im);
    expect(JSON.stringify(running.site.audit.events)).not.toContain(canary);
    // The site's own log has them.
    expect(JSON.stringify(running.site.log.events)).toContain(canary);
  });

  test('an endpoint whose answer could carry more than is named is refused when it is bound', () => {
    expect(bind(z.looseObject({}))).toThrow(/unknown keys/);
    expect(bind(z.record(z.string(), z.int()))).toThrow(/unknown keys/);
    expect(bind(z.object({ a: z.object({ b: z.any() }) }))).toThrow(/a\.b may be anything/);
    expect(bind(z.object({ a: z.array(z.int()) }))).toThrow(/no bound/);
    expect(bind(z.object({ a: z.union([z.int(), z.string()]) }))).toThrow(/without a bound/);
    expect(bind(z.object({ a: z.array(z.string().max(9)).max(3) }))).not.toThrow();
  });

  test('what can not be recorded is not answered', async () => {
    await using running = await startSource();
    running.site.audit.fails = true;
    const text = rawRequest(primary, 'to-primary', running.port);
    expect(await ask(primary, running.port, text)).toEqual(refusal(503, 'unavailable'));
  });
});
