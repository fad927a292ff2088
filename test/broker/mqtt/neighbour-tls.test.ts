import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type ConnectionOptions } from 'node:tls';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import type { RefusalReason } from '../../../broker/mqtt/neighbour-listener.ts';
import { createAuthority, issueLeaf } from '../../../common/identity/certificate-maker.ts';
import type { FileTlsIdentity } from '../../../common/identity/file-tls-identity.ts';
import { fingerprintOf } from '../../../common/identity/fingerprint.ts';
import {
  acceptRevocationLists,
  createInvitation,
  withdrawTrust,
} from '../../../common/identity/invitation.ts';
import { defaultLifetimes, SiteAuthority } from '../../../common/identity/site-authority.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import { buildSiteIdentity } from '../../../common/identity/site-identity.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { eventually } from '../../support/eventually.ts';
import { Federation } from '../../support/federation.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { makeNeighbours, makeSite, trustSite } from '../../support/sites.ts';

const clock = new SystemClock();
const dayMs = 86_400_000;
const timeoutMs = 10_000;

let federation: Federation;
beforeEach(() => {
  federation = new Federation();
});
afterEach(async () => {
  await federation.close();
});

/** Site p produces for site c; p's broker runs. */
async function relation(): Promise<{
  p: string;
  c: string;
  producer: FileTlsIdentity;
  consumer: FileTlsIdentity;
  broker: EmbeddedBroker;
}> {
  const p = await makeSite(federation.parent, 'site-p', { listen: ['127.0.0.1:8883'] });
  const c = await makeSite(federation.parent, 'site-c');
  await makeNeighbours('p-c', p, c);
  const producer = await federation.identity(p);
  const consumer = await federation.identity(c);
  return { p, c, producer, consumer, broker: await federation.broker(producer) };
}

/** p produces for c and d. */
async function twoConsumers() {
  const setting = await relation();
  const d = await makeSite(federation.parent, 'site-d');
  await makeNeighbours('p-d', setting.p, d);
  await setting.producer.reload();
  return { ...setting, d: await federation.identity(d) };
}

async function refused(broker: EmbeddedBroker, reason: RefusalReason, times = 1): Promise<boolean> {
  return eventually(() => broker.refusals.count(reason) >= times, { timeoutMs });
}

/** What a raw TLS client with these options comes to: `closed`, or an error code. */
async function handshake(broker: EmbeddedBroker, options: ConnectionOptions): Promise<string> {
  const { port } = new URL(broker.neighbourUrl);
  const socket = connect({
    host: '127.0.0.1',
    port: Number(port),
    rejectUnauthorized: false,
    ...options,
  });
  let outcome = 'closed';
  socket.on('error', (error: NodeJS.ErrnoException) => {
    outcome = error.code ?? error.message;
  });
  // A server's refusal reaches a TLS 1.3 client after its own handshake: reading finds it.
  socket.resume();
  await closed(socket);
  return outcome;
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.on('close', () => {
      resolve();
    });
  });
}

/** `work` may wait, by this clock, for a lock that a renewal under way has. */
async function whileAdvancing<Result>(time: ManualClock, work: Promise<Result>): Promise<Result> {
  const isDone = work.then(
    () => true,
    () => true,
  );
  while (!(await Promise.race([isDone, delay(5, false)]))) await time.advance(50);
  return work;
}

describe('mutual TLS between neighbours', () => {
  test('a peer without a certificate is refused', async () => {
    const { broker } = await relation();
    expect(await handshake(broker, {})).toMatch(/certificate.required/i);
    expect(await refused(broker, 'handshake-failed')).toBe(true);
  });

  test('TLS 1.2 is refused, with the right certificate too', async () => {
    const { broker, consumer } = await relation();
    const { cert, key } = consumer.material();
    const outcome = await handshake(broker, { cert, key, maxVersion: 'TLSv1.2' });
    expect(outcome).toMatch(/protocol.version/i);
    expect(await refused(broker, 'handshake-failed')).toBe(true);
  });

  test('a certificate of an authority that nobody pinned is refused', async () => {
    const { broker } = await relation();
    const stranger = await makeSite(federation.parent, 'site-s');
    const { cert, key } = (await federation.identity(stranger)).material();
    await handshake(broker, { cert, key });
    expect(await refused(broker, 'handshake-failed')).toBe(true);
  });

  test("a name of another site that a site's own authority issued is refused", async () => {
    const { broker, c } = await relation();
    const authority = readAuthority(c);
    const nowMs = clock.wallUs() / 1_000;
    const validity = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + dayMs };
    const other = await issueLeaf(authority, { siteName: 'site-p', hosts: [] }, validity);
    // The name constraint of the authority: OpenSSL refuses before we look.
    await handshake(broker, other);
    expect(await refused(broker, 'handshake-failed')).toBe(true);
    expect(broker.refusals.count('unknown-peer')).toBe(0);
  });

  test('an authority that may issue another name is refused by our own check', async () => {
    const { broker, p, producer } = await relation();
    const nowMs = clock.wallUs() / 1_000;
    const validity = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + dayMs };
    // As if the check at `isobar site trust` had not been: pinned for site-c, but made for site-x.
    const authority = await createAuthority('site-x', validity);
    writeFileSync(siteFiles(p).pins('p-c'), authority.cert);
    await producer.reload();
    const leaf = await issueLeaf(authority, { siteName: 'site-x', hosts: [] }, validity);
    await handshake(broker, leaf);
    expect(await refused(broker, 'unknown-peer')).toBe(true);
  });

  test.each([
    ['an expired certificate', -30 * dayMs],
    ['a certificate that is not yet valid', 30 * dayMs],
  ])('%s is refused', async (_title, offsetMs) => {
    const { broker, c, consumer } = await relation();
    const otherTime = new ManualClock(clock.wallUs() + offsetMs * 1_000);
    await new SiteAuthority({ clock: otherTime }, c).rotate('leaf');
    await consumer.reload();
    const { cert, key } = consumer.material();
    await handshake(broker, { cert, key });
    expect(await refused(broker, 'handshake-failed')).toBe(true);
  });

  test('a client refuses a server that is not the neighbour of its relation', async () => {
    const { broker, c, consumer } = await relation();
    const other = await makeSite(federation.parent, 'site-o');
    await makeNeighbours('o-c', other, c);
    await consumer.reload();
    const client = await federation.client(consumer, 'o-c', broker.neighbourUrl);
    const right = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => right.isConnected, { timeoutMs });
    expect(client.isConnected).toBe(false);
  });

  test('a client refuses a server with a certificate of a stranger', async () => {
    const { consumer } = await relation();
    const stranger = await makeSite(federation.parent, 'site-s');
    const identity = await federation.identity(stranger);
    const broker = await federation.broker(identity);
    await federation.client(consumer, 'p-c', broker.neighbourUrl);
    // The client's alert is what the server sees of it.
    expect(await refused(broker, 'handshake-failed')).toBe(true);
  });

  test('a peer that opens a connection and says nothing is cut', async () => {
    const { producer } = await relation();
    const broker = await federation.broker(producer, { handshakeTimeoutMs: 100 });
    const socket = connectTcp(Number(new URL(broker.neighbourUrl).port), '127.0.0.1');
    socket.resume();
    socket.on('error', () => {});
    await closed(socket);
    expect(await refused(broker, 'handshake-failed')).toBe(true);
  });

  test('a neighbour has a bounded number of connections', async () => {
    const { producer, consumer } = await relation();
    const broker = await federation.broker(producer, { connectionsPerNeighbourMax: 1 });
    const first = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => first.isConnected, { timeoutMs });
    const second = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    expect(await refused(broker, 'too-many-connections')).toBe(true);
    expect([first.isConnected, second.isConnected]).toEqual([true, false]);
  });

  test('a packet over the maximum ends the connection before it is collected', async () => {
    const { producer, consumer } = await relation();
    const broker = await federation.broker(producer, { packetBytesMax: 1_000 });
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => client.isConnected, { timeoutMs });
    const publishing = client.publish('n/p-c/up/control', new Uint8Array(2_000), 1);
    publishing.catch(() => {});
    expect(await refused(broker, 'packet-too-large')).toBe(true);
    await expect(publishing).rejects.toMatchObject({ code: 'mqtt-publish-failed' });
  });
});

describe('trust that changes under way', () => {
  test('a revoked certificate: its live connection is cut, and a new certificate is welcome', async () => {
    const { p, c, producer, consumer, broker } = await relation();
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => client.isConnected, { timeoutMs });
    const before = consumer.material();

    await new SiteAuthority({ clock }, c).revoke('leaf');
    const lists = readFileSync(siteFiles(c).revocationList, 'utf8');
    await acceptRevocationLists(clock, p, 'p-c', lists);
    await producer.reload();

    expect(await refused(broker, 'trust-withdrawn')).toBe(true);
    await eventually(() => !client.isConnected, { timeoutMs });
    await handshake(broker, { cert: before.cert, key: before.key });
    expect(await refused(broker, 'unknown-peer')).toBe(true);
    await consumer.reload();
    await eventually(() => client.isConnected, { timeoutMs });
  });

  test('a neighbour that is trusted no longer is cut, the others go on', async () => {
    const { p, producer, consumer, broker } = await relation();
    const d = await makeSite(federation.parent, 'site-d');
    await makeNeighbours('p-d', p, d);
    await producer.reload();
    const other = await federation.client(await federation.identity(d), 'p-d', broker.neighbourUrl);
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => client.isConnected && other.isConnected, { timeoutMs });
    let otherChangeCount = 0;
    other.onConnection(() => {
      otherChangeCount += 1;
    });

    await withdrawTrust(clock, p, 'p-c');
    await producer.reload();

    await eventually(() => !client.isConnected, { timeoutMs });
    expect(await refused(broker, 'handshake-failed')).toBe(true);
    expect(client.isConnected).toBe(false);
    expect(otherChangeCount).toBe(0);
  });

  test('a client leaves a server that is trusted no longer', async () => {
    const { c, consumer, broker } = await relation();
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => client.isConnected, { timeoutMs });
    await withdrawTrust(clock, c, 'p-c');
    await consumer.reload();
    expect(await eventually(() => !client.isConnected, { timeoutMs })).toBe(true);
  });

  test('leaf certificates renew themselves, and authorities rotate, without losing a connection', async () => {
    const time = new ManualClock(clock.wallUs());
    const hourMs = 3_600_000;
    // Backdated, as OpenSSL's own clock stands still here.
    const lifetimes = { ...defaultLifetimes, leafMs: hourMs, backdateMs: 3 * hourMs };
    const p = await makeSite(federation.parent, 'site-p', { clock: time, lifetimes });
    const c = await makeSite(federation.parent, 'site-c', { clock: time, lifetimes });
    await makeNeighbours('p-c', p, c, time);
    const [producer, consumer] = [p, c].map((directory) => {
      const site = buildSiteIdentity({ clock: time, log: silentLog }, directory, lifetimes);
      federation.onClose(async () => {
        const stopping = site.service.stop();
        // A renewal may be waiting for the lock that this test had.
        await time.advance(1_000);
        await stopping;
      });
      return site;
    });
    if (producer === undefined || consumer === undefined) throw new Error('two sites');
    await producer.service.start();
    await consumer.service.start();
    const broker = await federation.broker(producer.identity);
    const newClient = () => federation.client(consumer.identity, 'p-c', broker.neighbourUrl);
    const first = await newClient();
    const received: number[] = [];
    await first.subscribe('n/p-c/down/live', 1, (_topic, bytes) => {
      received.push(Buffer.from(bytes).readUInt32LE());
    });
    await eventually(() => first.isConnected, { timeoutMs });
    let lossCount = 0;
    first.onConnection(() => {
      lossCount += 1;
    });
    let sentCount = 0;
    const send = async (): Promise<void> => {
      for (let index = 0; index < 20; index += 1) {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32LE(sentCount);
        sentCount += 1;
        await broker.publish('n/p-c/down/live', bytes, 1);
      }
    };
    await send();

    const before = [producer, consumer].map(({ identity }) => identity.material());
    // Wall time alone, as running the minutes between takes long.
    time.stepWall(((hourMs * 2) / 3 - 122_000) * 1_000);
    await time.advance(61_000);
    expect([producer, consumer].map(({ identity }) => identity.material())).toEqual(before);
    await send();
    await time.advance(122_000);
    await eventually(
      () =>
        producer.identity.material().cert !== before[0]?.cert &&
        consumer.identity.material().cert !== before[1]?.cert,
      { timeoutMs },
    );
    expect(producer.identity.material().key).not.toBe(before[0]?.key);
    await send();
    const second = await newClient();
    await eventually(() => second.isConnected, { timeoutMs });

    const authority = new SiteAuthority({ clock: time }, c, lifetimes);
    const old = await createInvitation(c, 'p-c', 'consumer');
    await whileAdvancing(time, authority.prepareAuthority());
    await whileAdvancing(time, trustSite(time, p, c, 'p-c', 'consumer'));
    await producer.identity.reload();
    await send();
    await whileAdvancing(time, authority.activateAuthority());
    await consumer.identity.reload();
    await send();
    const third = await newClient();
    await eventually(() => third.isConnected, { timeoutMs });
    await eventually(() => received.length === sentCount, { timeoutMs });
    expect(received).toEqual(Array.from({ length: sentCount }, (_, index) => index));
    expect(lossCount).toBe(0);

    // The end of the overlap: what still hangs on the old authority connects anew, under the new one.
    await withdrawTrust(time, p, 'p-c', fingerprintOf(old.authorities[0] ?? ''));
    await producer.identity.reload();
    expect(await refused(broker, 'trust-withdrawn', 2)).toBe(true);
    await eventually(() => lossCount === 2 && first.isConnected, { timeoutMs });
    expect(third.isConnected).toBe(true);
  });
});

describe('the subtree of a relation', () => {
  test.each([
    '#',
    'n/#',
    'n/+/down/#',
    '+/p-d/#',
    'n/p-d/down/live',
    'n/p-c/up/#',
    '$SYS/#',
    'n/p-c/+/live',
  ])('a consumer that subscribes %s gets nothing and is disconnected', async (filter) => {
    const { consumer, broker } = await twoConsumers();
    const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
    await eventually(() => client.isConnected, { timeoutMs });
    const received: string[] = [];
    client
      .subscribe(filter, 1, (topic) => {
        received.push(topic);
      })
      .catch(() => {});
    expect(await refused(broker, 'subscribe-not-allowed')).toBe(true);
    for (const topic of ['n/p-c/down/live', 'n/p-d/down/live', 'n/p-c/up/control']) {
      await broker.publish(topic, new Uint8Array(1), 1);
    }
    // It reconnects and asks again, without end; each attempt is refused.
    expect(await refused(broker, 'subscribe-not-allowed', 3)).toBe(true);
    expect(received).toEqual([]);
  });

  test.each(['n/p-d/up/control', 'n/p-c/down/live', 'n/p-c', 'n/p-c/up', 'other', '$SYS/x'])(
    'a consumer that publishes to %s is disconnected, and nobody receives it',
    async (topic) => {
      const { consumer, broker } = await twoConsumers();
      const received: string[] = [];
      await broker.subscribe('#', 1, (each) => {
        received.push(each);
      });
      const client = await federation.client(consumer, 'p-c', broker.neighbourUrl);
      await eventually(() => client.isConnected, { timeoutMs });
      let isCut = false;
      client.onConnection((isConnected) => {
        isCut ||= !isConnected;
      });
      await client.publish(topic, new Uint8Array(1), 0);
      expect(await refused(broker, 'publish-not-allowed')).toBe(true);
      await eventually(() => isCut && client.isConnected, { timeoutMs });
      await client.publish('n/p-c/up/control', new Uint8Array(1), 1);
      await eventually(() => received.includes('n/p-c/up/control'), { timeoutMs });
      expect(received.filter((each) => !each.startsWith('$SYS'))).toEqual(['n/p-c/up/control']);
    },
  );

  test('a producer that dials its consumer has the other direction, and no more', async () => {
    const { producer, consumer } = await relation();
    const broker = await federation.broker(consumer);
    const client = await federation.client(producer, 'p-c', broker.neighbourUrl);
    await eventually(() => client.isConnected, { timeoutMs });
    const atConsumer: string[] = [];
    await broker.subscribe('n/p-c/down/#', 1, (topic) => {
      atConsumer.push(topic);
    });
    const atProducer: string[] = [];
    await client.subscribe('n/p-c/up/#', 1, (topic) => {
      atProducer.push(topic);
    });
    await client.publish('n/p-c/down/live', new Uint8Array(1), 1);
    await broker.publish('n/p-c/up/control', new Uint8Array(1), 1);
    await eventually(() => atConsumer.length === 1 && atProducer.length === 1, { timeoutMs });
    expect(broker.refusals.total).toBe(0);
    await client.publish('n/p-c/up/control', new Uint8Array(1), 0);
    expect(await refused(broker, 'publish-not-allowed')).toBe(true);
  });
});

describe('as OpenSSL sees it', () => {
  test('openssl verify accepts the leaf under its authority and openssl s_client completes the handshake', async () => {
    const { p, c, broker } = await relation();
    const files = siteFiles(c);
    const verdict = await openssl(
      ['verify', '-CAfile', files.certificate('authority')],
      ['-purpose', 'sslclient', files.certificate('leaf')],
    );
    expect(verdict).toContain('leaf.crt: OK');
    const shown = await openssl(
      ['s_client', '-connect', new URL(broker.neighbourUrl).host, '-verify_return_error'],
      ['-CAfile', siteFiles(p).certificate('authority'), '-verify_ip', '127.0.0.1'],
      ['-cert', files.certificate('leaf'), '-key', files.key('leaf')],
    );
    expect(shown).toContain('Verify return code: 0 (ok)');
    expect(shown).toContain('TLSv1.3');
  });

  test('the handshake tells nobody the names of other neighbours', async () => {
    const { p, producer, broker } = await relation();
    const secret = await makeSite(federation.parent, 'very-secret-site');
    await makeNeighbours('secret-relation', p, secret);
    await producer.reload();
    const { host } = new URL(broker.neighbourUrl);
    const shown = await openssl(['s_client', '-connect', host, '-showcerts', '-msg', '-debug']);
    expect(shown).toContain('Isobar site authority');
    expect(shown).not.toMatch(/secret|site-c/);
  });
});

function readAuthority(directory: string) {
  const files = siteFiles(directory);
  return {
    cert: readFileSync(files.certificate('authority'), 'utf8'),
    key: readFileSync(files.key('authority'), 'utf8'),
  };
}

/** What it prints; with nothing on standard input. */
async function openssl(...options: readonly (readonly string[])[]): Promise<string> {
  const child = spawn('openssl', options.flat(), { stdio: ['pipe', 'pipe', 'pipe'] });
  let shown = '';
  child.stdin.end();
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('latin1').on('data', (text: string) => {
      shown += text;
    });
  }
  await once(child, 'close');
  return shown;
}
