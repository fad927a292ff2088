import { generateKeyPairSync, randomBytes } from 'node:crypto';

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  epochKeyFromBytes,
  epochKeyToBytes,
  epochPublicKey,
  isFrameSignature,
  newEpochKey,
  signFrame,
} from '../../../common/signing/epoch-key.ts';
import {
  countersign,
  signStatement,
  verifyStatement,
  type KeyClaim,
} from '../../../common/signing/key-statement.ts';
import { dataStream, sampleEpoch } from '../../support/sample-frames.ts';

const epochKey = newEpochKey();
const publicKey = publicKeyOf(epochKey.publicKey);
const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

function publicKeyOf(bytes: Uint8Array) {
  const key = epochPublicKey(bytes);
  if (key === undefined) throw new Error('not a public key');
  return key;
}

describe('an epoch key', () => {
  test('signs frames, and comes back from its bytes', () => {
    const kept = epochKeyFromBytes(epochKeyToBytes(epochKey));
    expect(kept.publicKey).toEqual(epochKey.publicKey);
    fc.assert(
      fc.property(fc.uint8Array(), fc.nat(), fc.integer({ min: 1, max: 255 }), (bytes, at, by) => {
        const signature = signFrame(bytes, kept);
        expect(isFrameSignature(signature, bytes, publicKey)).toBe(true);
        const altered = Uint8Array.from(signature);
        altered[at % altered.length] = (altered[at % altered.length] ?? 0) ^ by;
        expect(isFrameSignature(altered, bytes, publicKey)).toBe(false);
        expect(isFrameSignature(signature, Buffer.concat([bytes, Buffer.of(0)]), publicKey)).toBe(
          false,
        );
      }),
    );
    const other = publicKeyOf(newEpochKey().publicKey);
    expect(isFrameSignature(signFrame(randomBytes(9), epochKey), randomBytes(9), other)).toBe(
      false,
    );
  });

  test('has one signature for a frame on its way: the twin with the other s is refused', () => {
    for (let round = 0; round < 20; round += 1) {
      const bytes = randomBytes(100);
      const twin = Buffer.from(signFrame(bytes, epochKey));
      const s = BigInt(`0x${twin.toString('hex', 32)}`);
      twin.write((order - s).toString(16).padStart(64, '0'), 32, 'hex');
      expect(isFrameSignature(twin, bytes, publicKey)).toBe(false);
    }
  });

  test('is only ever on P-256', () => {
    const other = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey;
    expect(epochPublicKey(other.export({ type: 'spki', format: 'der' }))).toBeUndefined();
    expect(epochPublicKey(randomBytes(91))).toBeUndefined();
  });
});

describe('key statements along a chain', () => {
  const source = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const intermediary = generateKeyPairSync('ed25519');
  const claim: KeyClaim = {
    stream: dataStream('vm-1'),
    epoch: { number: 2, nonce: 'ffeeddccbbaa9988' },
    publicKey: epochKey.publicKey,
    predecessor: sampleEpoch,
  };
  const statement = signStatement(claim, source.privateKey);

  test('each hop verifies its neighbour and puts its own signature in the place of it', () => {
    const arrived: unknown = JSON.parse(JSON.stringify(statement));
    const atIntermediary = verifyStatement(arrived, source.publicKey);
    if (!atIntermediary.ok) throw new Error(atIntermediary.code);
    const onward = countersign(atIntermediary.claim, intermediary.privateKey);
    const atPrimary = verifyStatement(onward, intermediary.publicKey);
    if (!atPrimary.ok) throw new Error(atPrimary.code);
    expect({ ...atPrimary.claim, publicKey: Uint8Array.from(atPrimary.claim.publicKey) }).toEqual({
      ...claim,
      publicKey: Uint8Array.from(claim.publicKey),
    });
    expect(verifyStatement(onward, source.publicKey)).toMatchObject({ code: 'wrong-signature' });
  });

  test('nothing of the source site is in what the intermediary sends on', () => {
    const verified = verifyStatement(statement, source.publicKey);
    if (!verified.ok) throw new Error(verified.code);
    const onward = countersign(verified.claim, intermediary.privateKey);
    expect(Object.keys(onward).toSorted()).toEqual(
      ['epoch', 'predecessor', 'publicKey', 'signature', 'stream'].toSorted(),
    );
    expect(JSON.stringify(onward)).not.toContain(statement.signature);
    expect({ ...onward, signature: '' }).toEqual({ ...statement, signature: '' });
  });

  test('a statement whose stream, epoch, key or predecessor was changed is refused', () => {
    const changed = [
      { ...statement, stream: { ...statement.stream, vm: 'vm-2' } },
      { ...statement, stream: { ...statement.stream, kind: 'status' } },
      { ...statement, epoch: { ...statement.epoch, number: 3 } },
      { ...statement, epoch: { ...statement.epoch, nonce: '0000000000000000' } },
      { ...statement, publicKey: Buffer.from(newEpochKey().publicKey).toString('base64url') },
      { ...statement, predecessor: null },
    ];
    for (const each of changed) {
      expect(verifyStatement(each, source.publicKey)).toEqual({
        ok: false,
        code: 'wrong-signature',
      });
    }
  });

  test('never throws on anything that comes over the wire', () => {
    fc.assert(
      fc.property(fc.anything(), (anything) => {
        expect(verifyStatement(anything, source.publicKey).ok).toBe(false);
        expect(verifyStatement({ ...statement, signature: anything }, source.publicKey).ok).toBe(
          false,
        );
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 90 }), (bytes) => {
        const signature = Buffer.from(bytes).toString('base64url');
        for (const key of [source.publicKey, intermediary.publicKey]) {
          expect(verifyStatement({ ...statement, signature }, key).ok).toBe(false);
        }
      }),
    );
  });
});
