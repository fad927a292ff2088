import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { sealEnvelope } from '../../../common/sealing/cms-envelope.ts';
import {
  parseRecipientKey,
  parseRecipients,
  type RecipientKey,
} from '../../../common/sealing/recipients.ts';
import { encryptedDataPoint } from '../../../common/wire/data-point.ts';
import { decodeFrameHeader } from '../../../common/wire/frame-codec.ts';
import type { EncodedFrame, FrameRecord } from '../../../common/wire/frame.ts';
import type { Value } from '../../../common/wire/value.ts';
import { readReaderKeys } from '../../../primary-site/sealing/reader-keys.ts';
import type { SignaturePolicy } from '../../../primary-site/sealing/signature-inspector.ts';
import { PrimaryStore } from '../../../primary-site/store/primary-store.ts';
import { eventually } from '../../support/eventually.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { opensslEncrypt, opensslIdentity } from '../../support/openssl.ts';
import { ProtectedStream } from '../../support/protected-stream.ts';
import { deliveryRecord, rowRecord, sampleStartUs } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const reader = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const readerPem = reader.publicKey.export({ type: 'spki', format: 'pem' }).toString();
const privatePem = reader.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
const readerKey = parseRecipientKey(privatePem, []);

let directory: ReturnType<typeof temporaryDirectory>;
let store: PrimaryStore;

beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(async () => {
  await store.stop();
  directory[Symbol.dispose]();
});

async function start(keys: readonly RecipientKey[]): Promise<void> {
  store = new PrimaryStore(
    { clock: new ManualClock(sampleStartUs), log: silentLog },
    { path: join(directory.path, 'store.db'), seriesMax: 1_000, keys },
  );
  await store.start();
}

/** As the consumer does: only what passes is stored. */
async function arrive(policy: SignaturePolicy, ...frames: readonly EncodedFrame[]) {
  const verdicts = frames.map((frame) => store.inspector(policy).inspect(frame));
  await store.store(frames.filter((_, index) => verdicts[index] === 'take'));
  return verdicts;
}

function values(): readonly Value[] {
  const { readings } = store.reader.query({ pattern: '**' }, 1_000);
  return readings.map(({ value }) => value);
}

function findings(): readonly string[] {
  return store.integrity().map(({ finding, count }) => `${finding} ${count}`);
}

/** The frame with one byte changed, as someone on the way might; its header is what it now says. */
function altered({ bytes }: EncodedFrame, fromEnd: number): EncodedFrame {
  const changed = Uint8Array.from(bytes);
  const position = changed.length - fromEnd;
  changed[position] = (changed[position] ?? 0) ^ 1;
  const decoded = decodeFrameHeader(changed);
  if (!decoded.ok) throw new Error(decoded.problem.rule);
  return { header: decoded.header, bytes: changed };
}

const row = (value: number) => rowRecord('users', sampleStartUs + value, [value]);

describe('signatures at the primary site', () => {
  test('an altered frame is refused and recorded; the true one is stored after it', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: true });
    const frames = [source.open(), source.append(row(1))] as const;
    for (const claim of source.statements()) expect(store.acceptKeyStatement(claim)).toBe(true);
    const changed = [70, 75, 20].map((fromEnd) => altered(frames[1], fromEnd));
    expect(await arrive('when-stated', ...changed)).toEqual(['refuse', 'refuse', 'refuse']);
    expect(values()).toEqual([]);
    expect(await arrive('when-stated', ...frames)).toEqual(['take', 'take']);
    expect(values()).toEqual([1]);
    expect(findings()).toEqual(['forged 3']);
    expect(store.integrity()).toMatchObject([
      { vm: 'vm1', stream: 'data', epoch: 1, finding: 'forged', firstSeq: 2, lastSeq: 2 },
    ]);
  });

  test('a forged frame, signed by another key, is refused and recorded over a restart', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: true });
    const forger = new ProtectedStream({ signs: true });
    const opening = source.open();
    forger.open();
    const [claim] = source.statements();
    if (claim === undefined) throw new Error('no claim');
    store.acceptKeyStatement(claim);
    const { bytes } = forger.append(row(666));
    // In the name of the true epoch.
    const forged = Buffer.from(bytes);
    forged.set(Buffer.from(opening.header.epoch.nonce, 'hex'), forged.indexOf(1, 7) + 1);
    const header = { ...opening.header, seq: 2 };
    expect(await arrive('when-stated', { header, bytes: forged })).toEqual(['refuse']);
    await store.stop();
    await start([]);
    expect(findings()).toEqual(['forged 1']);
    expect(values()).toEqual([]);
  });

  test('a frame that was replayed in another place or reordered is refused: its place is signed', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: true });
    const frames = [source.open(), source.append(row(1)), source.append(row(2))] as const;
    for (const claim of source.statements()) store.acceptKeyStatement(claim);
    // Seq is the varint before the previous hash, behind magic, version, kind, "vm1", epoch number and nonce.
    const seqAt = 2 + 1 + 4 + 1 + 8;
    const moved = Uint8Array.from(frames[1].bytes);
    expect(moved[seqAt]).toBe(2);
    moved[seqAt] = 9;
    const header = { ...frames[1].header, seq: 9 };
    expect(await arrive('when-stated', { header, bytes: moved })).toEqual(['refuse']);
    // Out of order, but each in its place: the store puts them in order.
    expect(await arrive('when-stated', frames[2], frames[1], frames[0])).toEqual(
      Array.from({ length: 3 }, () => 'take'),
    );
    expect(new Set(values())).toEqual(new Set([1, 2]));
    expect(findings()).toEqual(['forged 1']);
  });

  test('the same frame again changes nothing; another one for its place is recorded', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: false });
    const frame = source.open();
    await arrive('when-stated', frame);
    const inspector = store.inspector('when-stated');
    inspector.repeated(frame);
    expect(findings()).toEqual([]);
    inspector.repeated(altered(frame, 1));
    expect(findings()).toEqual(['contradicting 1']);
  });

  test('where signatures are required nothing unsigned is taken, and nothing before its key was stated', async () => {
    await start([]);
    const unsigned = new ProtectedStream({ signs: false });
    expect(await arrive('required', unsigned.open())).toEqual(['refuse']);
    const source = new ProtectedStream({ signs: true });
    const frames = [source.open(), source.append(row(1))] as const;
    expect(await arrive('required', ...frames)).toEqual(['not-yet', 'not-yet']);
    expect(values()).toEqual([]);
    expect(findings().toSorted()).toEqual(['key-not-stated 2', 'unsigned 1']);
    for (const claim of source.statements()) store.acceptKeyStatement(claim);
    expect(await arrive('required', ...frames)).toEqual(['take', 'take']);
    expect(values()).toEqual([1]);
    // That frames were quicker than the statement was nothing.
    expect(findings()).toEqual(['unsigned 1']);
  });

  test('an epoch whose key was stated takes no unsigned frame; others are taken as they come', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: true });
    const opening = source.open();
    expect(await arrive('when-stated', opening)).toEqual(['take']);
    for (const claim of source.statements()) store.acceptKeyStatement(claim);
    const frame = source.append(row(1));
    const bytes = Buffer.concat([frame.bytes.subarray(0, -65), Buffer.of(0)]);
    expect(await arrive('when-stated', { header: frame.header, bytes })).toEqual(['refuse']);
    expect(await arrive('off', { header: frame.header, bytes })).toEqual(['take']);
    expect(findings()).toEqual(['unsigned 1']);
  });

  test('the first key that was stated for an epoch stays; another one is recorded', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: true });
    const other = new ProtectedStream({ signs: true });
    source.open();
    other.open();
    const [claim] = source.statements();
    const [otherClaim] = other.statements();
    if (claim === undefined || otherClaim === undefined) throw new Error('no claim');
    expect(store.acceptKeyStatement(claim)).toBe(true);
    expect(store.acceptKeyStatement(claim)).toBe(true);
    const swapped = { ...claim, publicKey: otherClaim.publicKey };
    expect(store.acceptKeyStatement(swapped)).toBe(false);
    expect(findings()).toEqual(['key-contradicting 1']);
    expect(await arrive('required', source.append(row(1)))).toEqual(['take']);
  });
});

describe('sealed frames at the primary site', () => {
  test('are opened with the primary site’s key, and their values are ordinary readings', async () => {
    await start([readerKey]);
    const source = new ProtectedStream({ signs: true, recipientsPem: readerPem });
    await arrive('when-stated', source.open(), source.append(row(1)), source.append(row(2)));
    expect(new Set(values())).toEqual(new Set([1, 2]));
    expect(store.waitingFrames()).toBe(0);
  });

  test('that come before the frame with their key wait for it, and are opened then', async () => {
    await start([readerKey]);
    const source = new ProtectedStream({ signs: false, recipientsPem: readerPem });
    const opening = source.open();
    const withKey = source.append(row(0));
    const rest = Array.from({ length: 1_200 }, (_, index) => source.append(row(index + 1)));
    await arrive('when-stated', opening, ...rest);
    expect([values(), store.waitingFrames()]).toEqual([[], 1_200]);
    await arrive('when-stated', withKey);
    await eventually(() => store.waitingFrames() === 0, { timeoutMs: 10_000 });
    const { readings } = store.reader.query({ pattern: '**' }, 2_000);
    expect(readings.length).toBe(1_201);
    expect(new Set(readings.map(({ position }) => position)).size).toBe(1_201);
  });

  test('wait for a private key that is put in place later', async () => {
    const source = new ProtectedStream({ signs: false, recipientsPem: readerPem });
    await start([]);
    await arrive('when-stated', source.open(), source.append(row(1)));
    expect([values(), store.waitingFrames()]).toEqual([[], 1]);
    await store.stop();
    await start([readerKey]);
    await eventually(() => store.waitingFrames() === 0, { timeoutMs: 5_000 });
    expect(values()).toEqual([1]);
    await store.stop();
    await start([readerKey]);
    await arrive('when-stated', source.append(row(2)));
    const positions = store.reader
      .query({ pattern: '**' }, 9)
      .readings.map((each) => each.position);
    expect(new Set(positions)).toEqual(new Set([1, 2]));
  });

  test('an altered one is refused even unsigned, once its key is known; the true one is stored', async () => {
    await start([readerKey]);
    const source = new ProtectedStream({ signs: false, recipientsPem: readerPem });
    await arrive('when-stated', source.open(), source.append(row(1)));
    const frame = source.append(row(2));
    expect(await arrive('when-stated', altered(frame, 5))).toEqual(['refuse']);
    expect(await arrive('when-stated', frame)).toEqual(['take']);
    expect(new Set(values())).toEqual(new Set([1, 2]));
    expect(findings()).toEqual(['altered 1']);
  });

  test('an altered one that waited for its key makes no reading, and is recorded', async () => {
    await start([readerKey]);
    const source = new ProtectedStream({ signs: false, recipientsPem: readerPem });
    const opening = source.open();
    const withKey = source.append(row(1));
    await arrive('when-stated', opening, altered(source.append(row(2)), 5), withKey);
    await eventually(() => store.waitingFrames() === 0, { timeoutMs: 5_000 });
    expect(values()).toEqual([1]);
    expect(findings()).toEqual(['altered 1']);
    expect(store.counters.failed).toBe(1);
  });
});

const recipients = parseRecipients(readerPem);

function file(name: string, value: Value): FrameRecord {
  const dataPoint = encryptedDataPoint(name);
  const timeUs = sampleStartUs;
  return deliveryRecord([{ dataPoint, timeUs, uncertaintyUs: 3, value, held: false }]);
}

function byDataPoint(): ReadonlyMap<string, Value> {
  const found = store.reader.query({ pattern: '**' }, 1_000).readings;
  return new Map(found.map(({ dataPoint, value }) => [dataPoint, value]));
}

describe('files of encrypted/ at the primary site', () => {
  test('that are CMS envelopes for a known key become kpi/<file>/<column>, by the rules of files in the clear', async () => {
    await start([readerKey]);
    const source = new ProtectedStream({ signs: false });
    const csv = Buffer.from('cpu,mem\n0.5,1024\n');
    await arrive(
      'off',
      source.open(),
      source.append(file('app/load', sealEnvelope(csv, recipients))),
    );
    expect(byDataPoint()).toEqual(
      new Map([
        ['kpi/app%2Fload/cpu', 0.5],
        ['kpi/app%2Fload/mem', 1_024],
      ]),
    );
    expect(store.fileCounters.snapshot()).toMatchObject({ accepted: 1, forwarded: 1 });
  });

  test('that openssl cms encrypted open as well; others stay opaque as they are', async () => {
    const identity = opensslIdentity(directory.path, 'reader', 'rsa-2048');
    await start([parseRecipientKey(identity.keyPem, [identity.certificatePem])]);
    const source = new ProtectedStream({ signs: false });
    const opaque = {
      foreign: sealEnvelope(Buffer.from('1\n'), recipients),
      noise: Buffer.from('no envelope'),
      'no-csv': opensslEncrypt(Buffer.from('"unterminated'), [identity]),
    };
    await arrive(
      'off',
      source.open(),
      source.append(file('users', opensslEncrypt(Buffer.from('42\n'), [identity]))),
      ...Object.entries(opaque).map(([name, value]) => source.append(file(name, value))),
    );
    expect(byDataPoint()).toEqual(
      new Map<string, Value>([
        ['encrypted/foreign', Buffer.from(opaque.foreign)],
        ['encrypted/no-csv', Buffer.from(opaque['no-csv'])],
        ['encrypted/noise', opaque.noise],
        ['kpi/users/column1', 42],
      ]),
    );
    expect(store.fileCounters.snapshot()).toMatchObject({
      accepted: 3,
      forwarded: 1,
      dropped: 1,
      failed: 1,
    });
  });

  test('stay opaque where there is no key', async () => {
    await start([]);
    const source = new ProtectedStream({ signs: false });
    const envelope = sealEnvelope(Buffer.from('42\n'), recipients);
    await arrive('off', source.open(), source.append(file('users', envelope)));
    expect([...byDataPoint().keys()]).toEqual(['encrypted/users']);
  });
});

describe('keysDirectory', () => {
  test('holds private keys for this user only, and says what can’t be used', async () => {
    await start([]);
    const path = join(directory.path, 'reader.key');
    writeFileSync(path, privatePem, { mode: 0o600 });
    expect(readReaderKeys(directory.path).length).toBe(1);
    chmodSync(path, 0o640);
    expect(() => readReaderKeys(directory.path)).toThrow('chmod 600');
    chmodSync(path, 0o600);
    writeFileSync(path, 'hello');
    expect(() => readReaderKeys(directory.path)).toThrow('not a PEM private key');
    expect(() => readReaderKeys(join(directory.path, 'none'))).toThrow('make it');
  });
});
