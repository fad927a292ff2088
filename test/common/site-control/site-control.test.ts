import { connect } from 'node:net';
import { connect as tlsConnect } from 'node:tls';

import { describe, expect, test } from 'vitest';

import { SiteControlError } from '../../../common/site-control/site-control-error.ts';
import type { SiteControlServerOptions } from '../../../common/site-control/site-control-server.ts';
import { siteEndpoint } from '../../../common/site-control/site-endpoint.ts';
import {
  hopsMax,
  subscriptionEndpoint,
} from '../../../common/site-control/subscription-endpoint.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { TestIdentity, type TestSite } from '../../support/control-site.ts';
import {
  ask as askAs,
  makeSites,
  refusal,
  startSource as startSourceOf,
} from '../../support/control-source.ts';
import { eventually } from '../../support/eventually.ts';
import { ControlNeighbour, rawRequest, RawConnection } from '../../support/site-pair.ts';

const timeoutMs = 10_000;
const sites = await makeSites();
const { source, primary, other, stranger } = sites;
const startSource = (options: Partial<SiteControlServerOptions> = {}) =>
  startSourceOf(sites, options);
const ask = (site: TestSite, port: number, text: string) => askAs(site, source, port, text);
const primaryIdentity = () => new TestIdentity(primary, { 'to-primary': source });
const otherIdentity = () => new TestIdentity(other, { 'to-other': source });

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
    const subscribe = async (vm: string, hopCount: number) => {
      const streams = [{ vm: vmIdSchema.parse(vm), kind: 'data' as const }];
      const request = { kind: 'on-demand', streams, hopCount } as const;
      return (await neighbour.client.call(subscriptionEndpoint, request)).outcome;
    };
    expect(await subscribe('vm1', 1)).toBe('already-relayed');
    expect(await subscribe('vm2', 1)).toBe('not-authorized');
    expect(await subscribe('vm2', hopsMax)).toBe('hop-limit');
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
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      isClosed = true;
    });
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
