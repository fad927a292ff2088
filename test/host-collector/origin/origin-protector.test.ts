import { generateKeyPairSync } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { migrateStreamLog } from '../../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../../broker/log/stream-log.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { openEnvelope } from '../../../common/sealing/cms-envelope.ts';
import { contentKeyFromBytes, openBody } from '../../../common/sealing/content-key.ts';
import { parseRecipientKey } from '../../../common/sealing/recipients.ts';
import { epochPublicKey, isFrameSignature } from '../../../common/signing/epoch-key.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { infraDataPoint } from '../../../common/wire/data-point.ts';
import {
  decodeFrame,
  decodeFrameEnvelope,
  type FrameEnvelope,
} from '../../../common/wire/frame-codec.ts';
import type { EncodedFrame } from '../../../common/wire/frame.ts';
import { vmDescriptorSchema } from '../../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../../host-collector/origin/collector-schema.ts';
import { EpochKeyStore } from '../../../host-collector/origin/epoch-key-store.ts';
import { OriginProtector } from '../../../host-collector/origin/origin-protector.ts';
import { Origin } from '../../../host-collector/origin/origin.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { dataStream, rowRecord } from '../../support/sample-frames.ts';

const reader = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const readerPem = reader.publicKey.export({ type: 'spki', format: 'pem' }).toString();
const readerKey = parseRecipientKey(
  reader.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  [],
);
const stream = dataStream('vm1');
const rotationMs = 10_000;
const repeatMs = 1_000;

function build(database: Database = openDatabase(':memory:'), signs = true) {
  migrateStreamLog(database);
  migrateCollector(database);
  const clock = new ManualClock();
  const random = new SystemRandom();
  const keys = new EpochKeyStore(database);
  const options = { signs, keyRotationMs: rotationMs, keyRepeatMs: repeatMs };
  const protector = new OriginProtector({ clock, random, keys }, options);
  const log = new StreamLog({ database, clock, random, protector });
  return { database, clock, keys, protector, log };
}

function append({ database, log }: ReturnType<typeof build>, value: number): EncodedFrame {
  return database.transaction(() => log.append(stream, [rowRecord('users', 1, [value])]))();
}

function open({ database, log }: ReturnType<typeof build>): EncodedFrame {
  const opening = { generation: null, reason: 'created' } as const;
  return database.transaction(() => log.openEpoch(stream, opening).frame)();
}

function envelopeOf({ bytes }: EncodedFrame): FrameEnvelope {
  const decoded = decodeFrameEnvelope(bytes);
  if (!decoded.ok) throw new Error(decoded.problem.rule);
  return decoded.envelope;
}

function keyNameOf(frame: EncodedFrame): string | undefined {
  const { sealed } = envelopeOf(frame);
  return sealed === null ? undefined : Buffer.from(sealed.keyId).toString('hex');
}

function bringsKey(frame: EncodedFrame): boolean {
  return (envelopeOf(frame).sealed?.keyEnvelope ?? null) !== null;
}

/** Reads frames in order as the primary site would, out of the envelopes that they bring. */
function readAll(frames: readonly EncodedFrame[]): readonly boolean[] {
  const keys = new Map<string, NonNullable<ReturnType<typeof contentKeyFromBytes>>>();
  return frames.map(
    ({ bytes }) =>
      decodeFrame(bytes, (sealed) => {
        const name = Buffer.from(sealed.keyId).toString('hex');
        const opened = sealed.keyEnvelope && openEnvelope(sealed.keyEnvelope, [readerKey]);
        const brought = opened?.ok === true ? contentKeyFromBytes(opened.content) : undefined;
        if (brought !== undefined) keys.set(name, brought);
        const key = keys.get(name);
        return key === undefined ? { ok: false, code: 'key-unknown' } : openBody(key, sealed);
      }).ok,
  );
}

describe('OriginProtector', () => {
  test('seals data for the primary site: the first frame under a key brings it, as CMS', () => {
    const parts = build();
    parts.protector.setRecipients(stream.vm, readerPem);
    const opening = open(parts);
    const frames = [append(parts, 1), append(parts, 2), append(parts, 3)];
    expect(envelopeOf(opening).sealed).toBe(null);
    expect(frames.map(bringsKey)).toEqual([true, false, false]);
    expect(new Set(frames.map(keyNameOf)).size).toBe(1);
    expect(readAll(frames)).toEqual([true, true, true]);
    for (const { bytes } of frames) {
      expect(decodeFrame(bytes)).toMatchObject({ problem: { code: 'key-unknown' } });
      expect(Buffer.from(bytes).includes('users')).toBe(false);
    }
  });

  test('rotates the key, and repeats it for a reader that lost the frame that brought it', async () => {
    const parts = build();
    parts.protector.setRecipients(stream.vm, readerPem);
    open(parts);
    const first = append(parts, 1);
    await parts.clock.advance(repeatMs);
    const repeated = append(parts, 2);
    expect([keyNameOf(repeated), bringsKey(repeated)]).toEqual([keyNameOf(first), true]);
    await parts.clock.advance(rotationMs);
    const rotated = append(parts, 3);
    expect(keyNameOf(rotated)).not.toBe(keyNameOf(first));
    expect(readAll([repeated, rotated])).toEqual([true, true]);
  });

  test('another recipient, another epoch or a restart takes another key', () => {
    const database = openDatabase(':memory:');
    const parts = build(database);
    parts.protector.setRecipients(stream.vm, readerPem);
    open(parts);
    const names = [keyNameOf(append(parts, 1))];
    parts.protector.setRecipients(stream.vm, readerPem + readerPem);
    names.push(keyNameOf(append(parts, 2)));
    open(parts);
    names.push(keyNameOf(append(parts, 3)));
    const restarted = build(database);
    restarted.protector.setRecipients(stream.vm, readerPem);
    names.push(keyNameOf(append(restarted, 4)));
    expect(new Set(names).size).toBe(4);
    parts.protector.setRecipients(stream.vm, undefined);
    expect(keyNameOf(append(parts, 5))).toBe(undefined);
  });

  test('a seq that comes again after a rolled back transaction is sealed under another key', () => {
    const parts = build();
    parts.protector.setRecipients(stream.vm, readerPem);
    open(parts);
    const rolledBack: EncodedFrame[] = [];
    expect(() =>
      parts.database.transaction(() => {
        rolledBack.push(parts.log.append(stream, [rowRecord('users', 1, [1])]));
        throw new Error('the disk is full');
      })(),
    ).toThrow('the disk is full');
    const again = append(parts, 2);
    expect(again.header.seq).toBe(rolledBack[0]?.header.seq);
    expect(keyNameOf(again)).not.toBe(keyNameOf(rolledBack[0] ?? again));
    expect(readAll([again])).toEqual([true]);
  });

  test('every frame is signed by its epoch’s key, which the store states and which never leaves it', () => {
    const parts = build();
    const opening = open(parts);
    const frames = [opening, append(parts, 1)];
    const [claim] = parts.keys.claims();
    if (claim === undefined) throw new Error('no claim');
    expect(claim).toMatchObject({ stream, epoch: opening.header.epoch, predecessor: null });
    const key = epochPublicKey(claim.publicKey);
    for (const frame of frames) {
      const { signature, signedBytes } = envelopeOf(frame);
      expect(key && isFrameSignature(signature, signedBytes, key)).toBe(true);
    }
  });

  test('an epoch’s private key is gone once the epoch is closed, or a later one has a key', () => {
    const parts = build();
    const privateKeys = () =>
      parts.database
        .prepare('SELECT private_key IS NOT NULL FROM collector_epoch_keys ORDER BY number')
        .pluck()
        .all();
    const first = open(parts);
    const second = open(parts);
    expect(privateKeys()).toEqual([0, 1]);
    const closing = parts.database.transaction(() => parts.log.closeEpoch(stream))();
    expect(envelopeOf(closing).signature.length).toBe(64);
    expect(privateKeys()).toEqual([0, 0]);
    expect(parts.keys.claims()[1]).toMatchObject({
      epoch: second.header.epoch,
      predecessor: first.header.epoch,
    });
  });

  test('a key that was made in a rolled back transaction is made again', () => {
    const parts = build();
    expect(() =>
      parts.database.transaction(() => {
        parts.log.openEpoch(stream, { generation: null, reason: 'created' });
        throw new Error('the disk is full');
      })(),
    ).toThrow('the disk is full');
    expect(parts.keys.claims()).toEqual([]);
    open(parts);
    append(parts, 1);
    expect(parts.keys.claims().length).toBe(1);
  });

  test('a restarted collector goes on with the epoch’s signing key', () => {
    const database = openDatabase(':memory:');
    const parts = build(database);
    open(parts);
    const frame = append(build(database), 1);
    const key = epochPublicKey(parts.keys.claims()[0]?.publicKey ?? new Uint8Array());
    const { signature, signedBytes } = envelopeOf(frame);
    expect(key && isFrameSignature(signature, signedBytes, key)).toBe(true);
    expect(parts.keys.claims().length).toBe(1);
  });
});

/** What a collector forwards that runs once over `database`. */
async function runOnce(database: Database, signs: boolean): Promise<readonly EncodedFrame[]> {
  const parts = build(database, signs);
  const forwarded: EncodedFrame[] = [];
  const origin = new Origin({
    database,
    appender: parts.log,
    protector: parts.protector,
    forwarder: { forward: (frames) => void forwarded.push(...frames) },
    clock: parts.clock,
    log: silentLog,
  });
  const descriptor = vmDescriptorSchema.parse({
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: 'vm1',
    monitoring: { specifiers: [{ id: 'all', dataPoints: '**' }] },
  });
  await origin.start();
  origin.add(descriptor);
  await origin.stop();
  return forwarded;
}

describe('signing that begins or ends with a restart', () => {
  test('begins new epochs: an epoch is signed from its first frame to its last, or not at all', async () => {
    const database = openDatabase(':memory:');
    const frames = [false, true, true, false].map((signs) => () => runOnce(database, signs));
    const all: EncodedFrame[] = [];
    for (const next of frames) all.push(...(await next()));
    for (const kind of ['data', 'status'] as const) {
      const ofKind = all.filter(({ header }) => header.stream.kind === kind);
      const isSigned = (epoch: number) =>
        new Set(
          ofKind
            .filter(({ header }) => header.epoch.number === epoch)
            .map((frame) => envelopeOf(frame).signature.length > 0),
        );
      expect([1, 2, 3].map((epoch) => [...isSigned(epoch)])).toEqual([[false], [true], [false]]);
      expect(isSigned(4).size).toBe(0);
      const records = ofKind.flatMap(({ bytes }) => {
        const decoded = decodeFrame(bytes);
        return decoded.ok ? decoded.frame.records : [];
      });
      const reasons = records.flatMap((record) =>
        record.kind === 'epoch-opened' ? [record.reason] : [],
      );
      expect(reasons).toEqual(['created', 'signing-changed', 'signing-changed']);
      expect(records.filter((record) => record.kind === 'epoch-closed').length).toBe(2);
    }
    const keys = build(database).keys.claims();
    expect(keys.map(({ epoch }) => epoch.number)).toEqual([2, 2]);
  });
});

describe('a VM whose descriptor names the primary site’s key', () => {
  const descriptor = vmDescriptorSchema.parse({
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: 'vm1',
    monitoring: { specifiers: [{ id: 'all', dataPoints: '**' }] },
    primarySitePublicKey: readerPem,
  });

  test('has its data sealed from the first measurement on, and its status in the clear and signed', async () => {
    const parts = build();
    const forwarded: EncodedFrame[] = [];
    const origin = new Origin({
      database: parts.database,
      appender: parts.log,
      protector: parts.protector,
      forwarder: { forward: (frames) => void forwarded.push(...frames) },
      clock: parts.clock,
      log: silentLog,
    });
    await origin.start();
    origin.add(descriptor);
    const dataPoint = infraDataPoint('secret_resource', 'n');
    const measurement = { dataPoint, timeUs: 1, uncertaintyUs: 0, value: 1, held: false };
    origin.measured(descriptor.id, [measurement]);
    // Without a key for the next revision, what was measured before it is still sealed.
    const { primarySitePublicKey: _, ...clear } = descriptor;
    origin.update({ ...clear, revision: 2 });
    await origin.stop();
    const data = forwarded.filter(({ header }) => header.stream.kind === 'data').map(envelopeOf);
    expect(data.filter(({ sealed }) => sealed !== null).length).toBeGreaterThan(0);
    const inTheClear = forwarded.filter((frame) => envelopeOf(frame).sealed === null);
    for (const { bytes } of inTheClear) {
      expect(Buffer.from(bytes).includes('secret_resource')).toBe(false);
      expect(decodeFrame(bytes).ok).toBe(true);
    }
    expect(forwarded.every((frame) => envelopeOf(frame).signature.length === 64)).toBe(true);
    expect(inTheClear.some(({ header }) => header.stream.kind === 'status')).toBe(true);
  });
});
