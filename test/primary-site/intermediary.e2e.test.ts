import { createPrivateKey, X509Certificate } from 'node:crypto';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { EmbeddedBroker, embeddedBrokerDefaults } from '../../broker/mqtt/embedded-broker.ts';
import type { FileTlsIdentity } from '../../common/identity/file-tls-identity.ts';
import { SiteAuthority } from '../../common/identity/site-authority.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { newEpochKey, signFrame } from '../../common/signing/epoch-key.ts';
import { signStatement } from '../../common/signing/key-statement.ts';
import { decodeFrame, encodeFrame, firstPreviousHash } from '../../common/wire/frame-codec.ts';
import type { Epoch, Frame } from '../../common/wire/frame.ts';
import type { Value } from '../../common/wire/value.ts';
import { buildPrimarySite, type PrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { DishonestTransport } from '../support/dishonest-transport.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/external-broker.ts';
import { Federation } from '../support/federation.ts';
import { Origin } from '../support/origin.ts';
import { canariesIn } from '../support/plaintext-forms.ts';
import { RelaySite } from '../support/relay-site.ts';
import { dataStream, rowRecord, sampleStartUs } from '../support/sample-frames.ts';
import { makeNeighbours, makeSite, trustSite } from '../support/sites.ts';

const stream = dataStream('vm1');
const patience = { timeoutMs: 20_000 };
const row = (value: number) => rowRecord('users', sampleStartUs + value, [value]);

let federation: Federation;
let directories: { readonly source: string; readonly relay: string; readonly primary: string };
let ports: { readonly source: number; readonly relay: number };
let trust: { readonly source: FileTlsIdentity; readonly relay: FileTlsIdentity };
let origin: Origin;
let sourceBroker: EmbeddedBroker;
let relay: RelaySite;
let intermediary: DishonestTransport;
let primary: PrimarySite;

beforeEach(async () => {
  federation = new Federation();
  const { parent } = federation;
  directories = {
    source: await makeSite(parent, 'canary-source-site', { listen: ['canary-host.example:8883'] }),
    relay: await makeSite(parent, 'intermediary-site'),
    primary: await makeSite(parent, 'primary-site'),
  };
  await makeNeighbours('a', directories.source, directories.relay);
  await makeNeighbours('b', directories.relay, directories.primary);
  trust = {
    source: await federation.identity(directories.source),
    relay: await federation.identity(directories.relay),
  };
  ports = { source: await freePort(), relay: await freePort() };
  origin = await startOrigin();
  await startRelay();
});

afterEach(async () => {
  await federation.close();
});

/** The site of the VM; signs each frame with the epoch's key. */
async function startOrigin(): Promise<Origin> {
  const broker = new EmbeddedBroker(
    { log: silentLog },
    { ...embeddedBrokerDefaults, port: ports.source },
  );
  await broker.start();
  federation.onClose(() => broker.stop());
  sourceBroker = broker;
  const path = join(federation.parent, 'origin.db');
  const source = new Origin(broker, path, { relations: ['a'] }, () => true, trust.source);
  await source.producer.start();
  federation.onClose(() => source.close());
  return source;
}

async function startRelay(): Promise<void> {
  const site = await RelaySite.start({
    directory: join(federation.parent, 'relay-data'),
    port: ports.relay,
    upstream: [{ relation: 'a', port: ports.source }],
    downstream: [{ relation: 'b' }],
    trust: trust.relay,
    wrapDownstream: (broker) => {
      intermediary = new DishonestTransport(broker);
      return intermediary;
    },
  });
  federation.onClose(() => site[Symbol.asyncDispose]());
  relay = site;
}

/** With the defaults of a site: nothing is taken without a signature by a stated key. */
async function startPrimary(): Promise<void> {
  primary = buildPrimarySite(
    primarySiteConfigSchema.parse({
      dataDirectory: join(federation.parent, 'primary-data'),
      controlSocket: join(federation.parent, 'primary.sock'),
      siteDirectory: directories.primary,
      mqttUrl: `mqtt://127.0.0.1:${ports.relay}`,
      relation: 'b',
      jsonTopics: false,
    }),
  );
  await primary.service.start();
  const { service } = primary;
  federation.onClose(() => service.stop());
  await eventually(() => primary.consumer.isLive, patience);
}

function values(): readonly Value[] {
  const { readings } = primary.store.reader.query({ pattern: 'kpi/users/*' }, 1_000);
  return readings.map(({ value }) => value);
}

const ascending = (): readonly number[] =>
  values()
    .map(Number)
    .toSorted((a, b) => a - b);

function findings(): readonly string[] {
  return [...new Set(primary.store.integrity().map(({ finding }) => finding))].toSorted();
}

async function arrived(...expected: readonly number[]): Promise<void> {
  await eventually(() => ascending().length >= expected.length, patience);
  expect(ascending()).toEqual(expected);
}

async function found(finding: string): Promise<void> {
  await eventually(() => findings().includes(finding), patience);
}

/** Value 1, which arrived; what follows is in the same epoch. */
async function startWithOne(): Promise<Epoch> {
  await startPrimary();
  const epoch = origin.openEpoch(stream);
  origin.append(stream, [row(1)]);
  await arrived(1);
  return epoch;
}

/** Of a frame that is not sealed. */
function decoded(bytes: Uint8Array): { readonly frame: Frame; readonly signature: Uint8Array } {
  const outcome = decodeFrame(bytes);
  if (!outcome.ok) throw new Error(outcome.problem.rule);
  return outcome;
}

function forgedFrame(epoch: Epoch, seq: number, value: number, key = newEpochKey()): Uint8Array {
  const header = {
    stream,
    epoch,
    seq,
    previousHash: firstPreviousHash,
    producedAtUs: sampleStartUs,
  };
  return encodeFrame(
    { header, records: [row(value)] },
    { sign: (signed) => signFrame(signed, key) },
  );
}

describe('an intermediary that is not honest, and what it leads to at the primary site', () => {
  test('alters frames: refused as forged; the true ones are asked for and stored', async () => {
    await startWithOne();
    intermediary.frames = (frames) =>
      frames.map((bytes) => {
        const { frame, signature } = decoded(bytes);
        return encodeFrame({ ...frame, records: [row(666)] }, { sign: () => signature });
      });
    origin.append(stream, [row(2)]);
    await found('forged');
    expect(values()).toEqual([1]);
    intermediary.frames = (frames) => frames;
    origin.append(stream, [row(3)]);
    await arrived(1, 2, 3);
    expect(findings()).toEqual(['forged']);
  });

  test('takes signatures off: refused as unsigned; the signed ones are asked for and stored', async () => {
    await startWithOne();
    intermediary.frames = (frames) => frames.map((bytes) => encodeFrame(decoded(bytes).frame));
    origin.append(stream, [row(2)]);
    await found('unsigned');
    intermediary.frames = (frames) => frames;
    await arrived(1, 2);
    expect(findings()).toEqual(['unsigned']);
  });

  test('makes up frames: refused as forged, and no gap shows in their name', async () => {
    const epoch = await startWithOne();
    intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 1_000, 666)];
    origin.append(stream, [row(2)]);
    await found('forged');
    await arrived(1, 2);
    expect(primary.store.vmStatuses()[0]?.epochs[0]).toMatchObject({ missingFrames: 0 });
  });

  test('makes up an epoch: nothing of it is taken, as no key was stated', async () => {
    await startWithOne();
    const epoch = { number: 2, nonce: 'ffffffffffffffff' };
    intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 1, 666)];
    origin.append(stream, [row(2)]);
    await found('key-not-stated');
    await arrived(1, 2);
    expect(findings()).toEqual(['key-not-stated']);
  });

  test('replays frames: each is stored once', async () => {
    await startWithOne();
    const heard: Uint8Array[] = [];
    intermediary.frames = (frames) => {
      heard.push(...frames);
      return [...frames, ...heard];
    };
    for (const value of [2, 3, 4]) origin.append(stream, [row(value)]);
    await arrived(1, 2, 3, 4);
    expect(findings()).toEqual([]);
    expect(primary.consumer.counters.dropped).toBeGreaterThan(0);
  });

  test('exchanges places of frames: refused as forged; each is stored in its own place', async () => {
    await startWithOne();
    intermediary.frames = (frames) =>
      frames.map((bytes) => {
        const { frame, signature } = decoded(bytes);
        const header = { ...frame.header, seq: frame.header.seq ^ 1 };
        return encodeFrame({ ...frame, header }, { sign: () => signature });
      });
    for (const value of [2, 3, 4]) origin.append(stream, [row(value)]);
    await found('forged');
    expect(values()).toEqual([1]);
    intermediary.frames = (frames) => frames;
    await arrived(1, 2, 3, 4);
  });

  test('delivers late and out of order: stored, nothing found', async () => {
    await startWithOne();
    const held: Uint8Array[] = [];
    intermediary.frames = (frames) => {
      held.push(...frames);
      return held.length < 3 ? [] : held.splice(0).toReversed();
    };
    for (const value of [2, 3, 4, 5]) origin.append(stream, [row(value)]);
    await arrived(1, 2, 3, 4, 5);
    expect(findings()).toEqual([]);
  });

  test('withholds a frame: a gap that shows as missing, asked for until it comes', async () => {
    await startWithOne();
    intermediary.frames = (frames) =>
      frames.filter((bytes) => decoded(bytes).frame.header.seq !== 3);
    for (const value of [2, 3]) origin.append(stream, [row(value)]);
    await arrived(1, 3);
    expect(primary.store.vmStatuses()[0]?.epochs[0]).toMatchObject({
      missingFrames: 1,
      lostFrames: 0,
    });
    intermediary.frames = (frames) => frames;
    await arrived(1, 2, 3);
    expect(findings()).toEqual([]);
  });

  test('withholds key statements: nothing is taken and key-not-stated; when they come nothing was lost', async () => {
    intermediary.statements = () => undefined;
    await startPrimary();
    origin.openEpoch(stream);
    for (const value of [1, 2, 3]) origin.append(stream, [row(value)]);
    await found('key-not-stated');
    expect(values()).toEqual([]);
    intermediary.statements = (message) => message;
    await arrived(1, 2, 3);
    expect(findings()).toEqual([]);
  });

  test('hands on the statements of who is behind it: refused, the certificate is of no neighbour', async () => {
    const pair = trust.source.signing();
    const certificate = new X509Certificate(pair?.cert ?? '').raw.toString('base64');
    intermediary.statements = (message) => ({ ...message, certificate });
    await startPrimary();
    origin.openEpoch(stream);
    origin.append(stream, [row(1)]);
    await found('key-not-stated');
    expect(values()).toEqual([]);
  });

  test('states another key later: key-contradicting, and the first one stays', async () => {
    const epoch = await startWithOne();
    const own = newEpochKey();
    restateWith(own);
    intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 9, 666, own)];
    await found('key-contradicting');
    origin.append(stream, [row(2)]);
    await found('forged');
    await arrived(1, 2);
    expect(findings()).toEqual(['forged', 'key-contradicting']);
  });

  test('states a key of its own while it is exchanged: believed; only the contract covers that', async () => {
    const own = newEpochKey();
    restateWith(own);
    await startPrimary();
    const epoch = origin.openEpoch(stream);
    intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 1, 666, own)];
    origin.append(stream, [row(1)]);
    await eventually(() => values().includes(666), patience);
    // What shows is that the true frames do not fit; an intermediary that drops them shows nothing.
    await found('forged');
    expect(findings()).toEqual(['forged']);
  });
});

/** The intermediary states, under its own signature, that `own` is the key of whatever epoch. */
function restateWith(own: ReturnType<typeof newEpochKey>): void {
  const ownKey = createPrivateKey(trust.relay.signing()?.key ?? '');
  intermediary.statements = (message) => ({
    ...message,
    statements: message.statements.map(({ stream: stated, epoch, predecessor }) =>
      signStatement({ stream: stated, epoch, predecessor, publicKey: own.publicKey }, ownKey),
    ),
  });
}

describe('an intermediary that is honest', () => {
  test('says nothing of the site behind it: no name, address, certificate, key or signature', async () => {
    await startWithOne();
    const ofSource = trust.source.signing();
    const leaf = new X509Certificate(trust.source.material().cert);
    const signing = new X509Certificate(ofSource?.cert ?? '');
    const canaries = {
      name: 'canary-source-site',
      address: 'canary-host',
      signingCertificate: signing.raw.subarray(-64),
      signingKey: signing.publicKey.export({ type: 'spki', format: 'der' }).subarray(-64),
      leafKey: leaf.publicKey.export({ type: 'spki', format: 'der' }).subarray(-64),
      leafSerial: leaf.serialNumber,
    };
    const all = Buffer.concat(
      intermediary.sent.flatMap(({ topic, payload }) => [Buffer.from(topic), payload]),
    );
    expect(canariesIn(all, canaries)).toEqual([]);
    // The search finds what is there.
    const own = new X509Certificate(trust.relay.signing()?.cert ?? '').raw;
    expect(canariesIn(all, { own: own.subarray(-64) })).toEqual(['own']);
  });

  test('keeps statements over a restart: a reader that comes when the source is gone has its key', async () => {
    origin.openEpoch(stream);
    for (const value of [1, 2]) origin.append(stream, [row(value)]);
    await eventually(() => relay.relay.log.epochs()[0]?.lastSeq === 3, patience);
    await origin.close();
    await sourceBroker.stop();
    await relay[Symbol.asyncDispose]();
    await startRelay();
    await startPrimary();
    await arrived(1, 2);
    expect(findings()).toEqual([]);
  });

  test('signs anew when its authority rotates: the next epoch arrives without a pause of trust', async () => {
    await startWithOne();
    const clock = new SystemClock();
    const authority = new SiteAuthority({ clock }, directories.relay);
    const before = intermediary.certificates.at(-1);
    await authority.prepareAuthority();
    await trustSite(clock, directories.primary, directories.relay, 'b', 'producer');
    await authority.activateAuthority();
    await trust.relay.reload();
    await eventually(() => intermediary.certificates.at(-1) !== before, patience);
    origin.openEpoch(stream);
    origin.append(stream, [row(2)]);
    await arrived(1, 2);
    expect(findings()).toEqual([]);
  });
});
