import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { connect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';

import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { OperatingError } from '../../../common/runtime/operating-error.ts';
import { serve, type Endpoint } from '../../../common/site-control/endpoint.ts';
import { SiteControlError } from '../../../common/site-control/site-control-client.ts';
import type { SiteControlServerOptions } from '../../../common/site-control/site-control-server.ts';
import { serveSite, siteEndpoint } from '../../../common/site-control/site-endpoint.ts';
import {
  hopsMax,
  serveSubscriptions,
  subscriptionEndpoint,
  type SubscriptionRequest,
} from '../../../common/site-control/subscription-endpoint.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { TestIdentity, TestSite } from '../../support/control-site.ts';
import { eventually } from '../../support/eventually.ts';
import {
  ControlNeighbour,
  ControlSite,
  rawRequest,
  RawConnection,
  SkewedClock,
} from '../../support/site-pair.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const canary = 'CANARY-host-17.internal';
const timeoutMs = 10_000;
let source: TestSite;
let primary: TestSite;
let other: TestSite;
let stranger: TestSite;

beforeAll(async () => {
  [source, primary, other, stranger] = await Promise.all([
    TestSite.make('source'),
    TestSite.make('primary', 'p256'),
    TestSite.make('other'),
    TestSite.make('stranger'),
  ]);
});

/** Refuses, fails and takes its time as its request says. */
const moodEndpoint = {
  method: 'POST',
  path: '/v1/mood',
  requestSchema: z.strictObject({
    mood: z.enum(['good', 'bug', 'busy', 'talkative', 'slow']),
    filler: z.string().optional(),
  }),
  answerSchema: z.object({ outcome: z.enum(['good']) }),
  isIdempotent: true,
} as const satisfies Endpoint;
const onceEndpoint = { ...moodEndpoint, path: '/v1/once', isIdempotent: false } as const;

/** A site `source` with neighbours `primary` (relation to-primary) and `other` (relation to-other). */
async function startSource(
  options: Partial<SiteControlServerOptions> & { readonly clock?: SkewedClock } = {},
) {
  const directory = temporaryDirectory();
  const subscribed: { relation: string; request: SubscriptionRequest }[] = [];
  const keys: string[] = [];
  const handleMood = async (
    _relation: string,
    { mood }: z.output<typeof moodEndpoint.requestSchema>,
    { idempotencyKey, signal }: { idempotencyKey: string; signal: AbortSignal },
  ) => {
    keys.push(idempotencyKey);
    const secret = { outcome: 'good' as const, host: canary };
    switch (mood) {
      case 'bug':
        throw new Error(`no route to ${canary}`);
      case 'busy':
        throw new OperatingError('store-full', `disk of ${canary} is full`, { retryable: true });
      case 'slow':
        await new Promise((resolve) => {
          signal.addEventListener('abort', resolve);
        });
        return secret;
      case 'talkative':
      case 'good':
        return secret;
    }
  };
  const endpoints = [
    serveSite((relation) => ({
      name: 'source',
      role: relation === 'to-primary' ? 'producer' : 'consumer',
    })),
    serveSubscriptions({
      subscribe: (relation, request) => {
        subscribed.push({ relation, request });
        if (request.streams === 'all') return Promise.resolve('subscribed');
        const isOurs = request.streams.every(({ vm }) => vm === 'vm1');
        return Promise.resolve(isOurs ? 'already-relayed' : 'not-authorized');
      },
    }),
    serve(moodEndpoint, handleMood),
    serve(onceEndpoint, handleMood),
  ];
  const { clock, ...rest } = options;
  const start = (port: number) =>
    ControlSite.start(
      endpoints,
      source,
      { 'to-primary': primary, 'to-other': other },
      { directory: directory.path, port, ...(clock === undefined ? {} : { clock }) },
      rest,
    );
  let site = await start(0);
  const { port } = site.server;
  return {
    port,
    subscribed,
    keys,
    get site() {
      return site;
    },
    restart: async () => {
      await site[Symbol.asyncDispose]();
      site = await start(port);
    },
    [Symbol.asyncDispose]: async () => {
      await site[Symbol.asyncDispose]();
      directory[Symbol.dispose]();
    },
  };
}

const primaryIdentity = () => new TestIdentity(primary, { 'to-primary': source });
const otherIdentity = () => new TestIdentity(other, { 'to-other': source });

/** Sends bytes as `site` and returns the answer. */
async function ask(site: TestSite, port: number, text: string) {
  using connection = await RawConnection.open(site, source, port);
  connection.write(text);
  return await eventually(() => connection.answer ?? (connection.isClosed ? 'closed' : undefined), {
    timeoutMs,
  });
}

const refusal = (status: number, code: string) => ({
  status,
  body: JSON.stringify({ error: { code } }),
});

describe('requests between neighbours', () => {
  test('are answered over mutual TLS, each signed, both logged', async () => {
    await using running = await startSource();
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port);
    await using second = new ControlNeighbour(otherIdentity(), 'to-other', running.port);
    expect(await neighbour.client.call(siteEndpoint, {})).toEqual({
      name: 'source',
      protocolVersion: 1,
      role: 'producer',
    });
    expect(await second.client.call(siteEndpoint, {})).toMatchObject({ role: 'consumer' });
    const request = { kind: 'standing', streams: 'all', hopCount: 0 } as const;
    expect(await neighbour.client.call(subscriptionEndpoint, request)).toEqual({
      outcome: 'subscribed',
    });
    expect(running.subscribed).toEqual([{ relation: 'to-primary', request }]);
    expect(running.site.audit.events).toMatchObject([
      { relation: 'to-primary', direction: 'in', action: 'GET /v1/site', outcome: 'ok' },
      { relation: 'to-other', action: 'GET /v1/site' },
      { action: 'POST /v1/subscriptions', object: 'standing all', outcome: 'subscribed' },
    ]);
    const digests = running.site.audit.events.map(({ requestDigest }) => requestDigest);
    expect(neighbour.audit.events.map(({ requestDigest }) => requestDigest)).toEqual([
      digests[0],
      digests[2],
    ]);
    expect(neighbour.audit.outcomes()).toEqual(['ok', 'subscribed']);
  });

  test('a subscription is refused for a loop, for too many hops, and for what is not the neighbour’s', async () => {
    await using running = await startSource();
    await using neighbour = new ControlNeighbour(primaryIdentity(), 'to-primary', running.port);
    const ask = async (vm: string, hopCount: number) => {
      const streams = [{ vm: vmIdSchema.parse(vm), kind: 'data' as const }];
      const request = { kind: 'on-demand', streams, hopCount } as const;
      return (await neighbour.client.call(subscriptionEndpoint, request)).outcome;
    };
    expect(await ask('vm1', 1)).toBe('already-relayed');
    expect(await ask('vm2', 1)).toBe('not-authorized');
    expect(await ask('vm2', hopsMax)).toBe('hop-limit');
    expect(running.site.audit.events[0]?.object).toBe('on-demand vm1/data');
  });

  test('keep their connection, and it is replaced by one with the new certificates when they change', async () => {
    await using running = await startSource();
    const identity = primaryIdentity();
    await using neighbour = new ControlNeighbour(identity, 'to-primary', running.port);
    await neighbour.client.call(siteEndpoint, {});
    await neighbour.client.call(siteEndpoint, {});
    running.site.identity.changed();
    identity.changed();
    expect(await neighbour.client.call(siteEndpoint, {})).toMatchObject({ name: 'source' });
  });
});

describe('who is not let in', () => {
  test('a site that nobody pinned gets no answer', async () => {
    await using running = await startSource();
    expect(
      await ask(stranger, running.port, rawRequest(stranger, 'to-primary', running.port)),
    ).toBe('closed');
    const identity = new TestIdentity(stranger, { 'to-primary': source });
    await using neighbour = new ControlNeighbour(identity, 'to-primary', running.port);
    const refused = neighbour.client.call(siteEndpoint, {});
    await expect(refused).rejects.toThrow(SiteControlError);
    expect(running.site.audit.events).toEqual([]);
  });

  test('a request is never sent to a server that is another site', async () => {
    await using running = await startSource();
    // The client expects `other` there, and trusts both.
    const identity = new TestIdentity(primary, { 'to-primary': other, 'to-source': source });
    await using neighbour = new ControlNeighbour(identity, 'to-primary', running.port);
    await expect(neighbour.client.call(siteEndpoint, {})).rejects.toMatchObject({
      code: 'peer-untrusted',
    });
    expect(running.site.audit.events).toEqual([]);
  });

  test('a revoked certificate is refused at once, and its live connection cut', async () => {
    await using running = await startSource();
    using connection = await RawConnection.open(primary, source, running.port);
    connection.write(rawRequest(primary, 'to-primary', running.port));
    await eventually(() => connection.answer?.status === 200, { timeoutMs });
    await primary.revoke(['02']);
    try {
      running.site.identity.refuse('to-primary');
      await eventually(() => connection.isClosed, { timeoutMs });
      expect(
        await ask(primary, running.port, rawRequest(primary, 'to-primary', running.port)),
      ).toBe('closed');
      expect(
        await ask(other, running.port, rawRequest(other, 'to-other', running.port)),
      ).toMatchObject({ status: 200 });
    } finally {
      await primary.revoke([]);
    }
  });

  test('TLS 1.2 and plain HTTP are refused', async () => {
    await using running = await startSource();
    const socket = connect(running.port, '127.0.0.1');
    let received = '';
    let isClosed = false;
    socket.on('data', (chunk) => (received += chunk.toString('latin1')));
    socket.on('error', () => {});
    socket.on('close', () => (isClosed = true));
    socket.write('GET /v1/site HTTP/1.1\r\nhost: x\r\n\r\n');
    await eventually(() => isClosed, { timeoutMs });
    expect(received).not.toContain('HTTP');
    const old = tlsConnect({
      host: '127.0.0.1',
      port: running.port,
      cert: primary.cert,
      key: primary.key,
      ca: [source.authority.toString('pem')],
      maxVersion: 'TLSv1.2',
    });
    const reason = await new Promise<string>((resolve) => {
      old.on('secureConnect', () => {
        resolve('connected');
      });
      old.on('error', (error) => {
        resolve(error.message);
      });
    });
    expect(reason).toContain('protocol version');
  });
});

describe('a request is refused', () => {
  test.each<[string, Parameters<typeof rawRequest>[3], number, string]>([
    [
      'with an altered body',
      { method: 'POST', path: '/v1/subscriptions', body: '{"a":1}', sentBody: '{"a":2}' },
      400,
      'digest-mismatch',
    ],
    [
      'with an altered body and the digest of that',
      {
        method: 'POST',
        path: '/v1/subscriptions',
        body: '{"a":1}',
        sentBody: '',
        headers: { 'content-digest': 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:' },
      },
      401,
      'signature-invalid',
    ],
    ['for an altered path', { sentPath: '/v1/subscriptions' }, 401, 'signature-invalid'],
    ['with an added query', { sentPath: '/v1/site?all=1' }, 401, 'signature-invalid'],
    ['for an altered method', { sentMethod: 'DELETE' }, 401, 'signature-invalid'],
    ['with another host', { headers: { host: 'elsewhere:1' } }, 401, 'signature-invalid'],
    [
      'with another idempotency key',
      { headers: { 'idempotency-key': 'key-2' } },
      401,
      'signature-invalid',
    ],
    ['that is expired', { createdS: Math.floor(Date.now() / 1_000) - 120 }, 401, 'expired'],
    ['that is good for an hour', { lifetimeS: 3_600 }, 401, 'expired'],
    ['that expires before it is made', { lifetimeS: -1 }, 401, 'expired'],
    ['from the future', { createdS: Math.floor(Date.now() / 1_000) + 120 }, 401, 'not-yet-valid'],
    ['for another relation', { signedRelation: 'to-other' }, 401, 'relation-mismatch'],
    [
      'that names another relation than it was signed for',
      { signedRelation: 'to-other', headers: { 'isobar-relation': 'to-primary' } },
      401,
      'signature-invalid',
    ],
    ['without a signature', { headers: { signature: undefined } }, 401, 'signature-missing'],
    ['without a nonce', { nonce: '' }, 401, 'signature-missing'],
    ['without a digest', { headers: { 'content-digest': undefined } }, 401, 'signature-missing'],
    [
      'with a content encoding',
      { headers: { 'content-encoding': 'gzip' } },
      401,
      'signature-missing',
    ],
    ['for what there is not', { path: '/v1/secrets' }, 404, 'not-found'],
    ['that is no JSON', { method: 'POST', path: '/v1/subscriptions', body: '{' }, 400, 'malformed'],
    [
      'with an unknown key',
      {
        method: 'POST',
        path: '/v1/subscriptions',
        body: '{"kind":"standing","streams":"all","hopCount":0,"admin":true}',
      },
      400,
      'malformed',
    ],
    ['with a body where there is none', { body: '{}' }, 400, 'malformed'],
  ])('%s', async (_name, change, status, code) => {
    await using running = await startSource();
    const answer = await ask(
      primary,
      running.port,
      rawRequest(primary, 'to-primary', running.port, change),
    );
    expect(answer).toEqual(refusal(status, code));
    expect(running.site.audit.outcomes()).toEqual([code]);
    expect(running.subscribed).toEqual([]);
  });

  test('with two signatures, of which one is right', async () => {
    await using running = await startSource();
    const text = rawRequest(primary, 'to-primary', running.port);
    const [, line = ''] = /(signature: .*\r\n)/.exec(text) ?? [];
    const twice = text.replace(line, `${line}${line}`);
    expect(await ask(primary, running.port, twice)).toEqual(refusal(401, 'signature-missing'));
  });

  test('signed with a key that is unknown', async () => {
    await using running = await startSource();
    const text = rawRequest(stranger, 'to-primary', running.port);
    expect(await ask(primary, running.port, text)).toEqual(refusal(401, 'signature-invalid'));
  });

  test('of a relation whose key we do not have', async () => {
    await using running = await startSource();
    const { identity } = running.site;
    Object.defineProperty(identity, 'verificationKeyOf', { value: () => undefined });
    const text = rawRequest(primary, 'to-primary', running.port);
    expect(await ask(primary, running.port, text)).toEqual(refusal(401, 'unknown-key'));
  });

  test('with the right signature of one neighbour over the connection of another', async () => {
    await using running = await startSource();
    const text = rawRequest(primary, 'to-primary', running.port);
    expect(await ask(other, running.port, text)).toEqual(refusal(401, 'relation-mismatch'));
    const relabelled = rawRequest(primary, 'to-other', running.port);
    expect(await ask(other, running.port, relabelled)).toEqual(refusal(401, 'signature-invalid'));
    // It was not used up by that.
    expect(await ask(primary, running.port, text)).toMatchObject({ status: 200 });
  });

  test('when it is replayed, on the same connection, on another, and after a restart', async () => {
    await using running = await startSource();
    const text = rawRequest(primary, 'to-primary', running.port);
    using connection = await RawConnection.open(primary, source, running.port);
    connection.write(text);
    await eventually(() => connection.answer?.status === 200, { timeoutMs });
    connection.write(text);
    await eventually(() => connection.answer?.status === 409, { timeoutMs });
    expect(connection.answer).toEqual(refusal(409, 'replayed'));
    expect(await ask(primary, running.port, text)).toEqual(refusal(409, 'replayed'));
    await running.restart();
    expect(await ask(primary, running.port, text)).toEqual(refusal(409, 'replayed'));
  });

  test('when its body is too large, told or not, without reading all of it', async () => {
    await using running = await startSource({ requestBytesMax: 1_000 });
    const body = 'x'.repeat(1_001);
    const told = rawRequest(primary, 'to-primary', running.port, { method: 'POST', body });
    expect(await ask(primary, running.port, told)).toEqual(refusal(413, 'too-large'));
    const head = rawRequest(primary, 'to-primary', running.port, {
      method: 'POST',
      sentBody: '',
      headers: { 'content-length': undefined, 'transfer-encoding': 'chunked' },
    });
    const chunk = `${(1_001).toString(16)}\r\n${body}\r\n`;
    expect(await ask(primary, running.port, head + chunk)).toEqual(refusal(413, 'too-large'));
    const tooManyHeaders = rawRequest(primary, 'to-primary', running.port, {
      headers: { 'x-filler': 'x'.repeat(20_000) },
    });
    expect(await ask(primary, running.port, tooManyHeaders)).toMatchObject({ status: 431 });
  });
});

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
    handshake.on('close', () => (isHandshakeClosed = true));
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
      socket.on('close', () => (closedCount += 1));
    }
    await eventually(() => closedCount === 2, { timeoutMs });
    for (const socket of sockets) socket.destroy();
    await eventually(() => closedCount === 5, { timeoutMs });
    const answer = async () =>
      ask(primary, running.port, rawRequest(primary, 'to-primary', running.port));
    await eventually(async () => (await answer()) !== 'closed', { timeoutMs });
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
    const bind = (answerSchema: z.ZodType) => () =>
      serve({ ...siteEndpoint, answerSchema }, () => Promise.resolve({}));
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
      await using fake = await fakeServer((socket) => socket.write(text));
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
