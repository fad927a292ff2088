import assert from 'node:assert';
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';

import type { OpenedBody, SealedBody } from '../wire/frame-codec.ts';
import { contentKeyIdBytes } from '../wire/frame-codec.ts';
import type { FrameHeader } from '../wire/frame.ts';

const cipher = 'aes-256-gcm';
const keyBytes = 32;
const tagBytes = 16;
const nonceBytes = 12;
const epochNonceBytes = 4;

/** A key that bodies of frames are sealed under, and the name that frames call it by. */
export interface ContentKey {
  readonly keyId: Uint8Array;
  readonly key: KeyObject;
}

/**
 * What a CMS key envelope holds: key id (8 bytes), then the AES-256 key. The id inside is authenticated with the key,
 * so that nobody can bring a key under the name of another.
 */
export function contentKeyToBytes({ keyId, key }: ContentKey): Uint8Array {
  return Buffer.concat([keyId, key.export()]);
}

/** Undefined when the bytes are no content key. */
export function contentKeyFromBytes(bytes: Uint8Array): ContentKey | undefined {
  if (bytes.length !== contentKeyIdBytes + keyBytes) return undefined;
  return {
    keyId: Uint8Array.from(bytes.subarray(0, contentKeyIdBytes)),
    key: createSecretKey(Buffer.from(bytes.subarray(contentKeyIdBytes))),
  };
}

/** A new key out of `random` bytes, which have to come from a cryptographic source. */
export function newContentKey(random: (byteCount: number) => Uint8Array): ContentKey {
  const found = contentKeyFromBytes(random(contentKeyIdBytes + keyBytes));
  assert(found !== undefined);
  return found;
}

/** The body encrypted, and the tag. A key seals each (epoch, seq) once: its nonce is made of them (NIST SP 800-38D, 8.2.1). */
export function sealBody(
  { key }: ContentKey,
  header: FrameHeader,
  body: Uint8Array,
  associatedData: Uint8Array,
): Uint8Array {
  const sealing = createCipheriv(cipher, key, nonceOf(header));
  sealing.setAAD(associatedData);
  const encrypted = sealing.update(body);
  sealing.final();
  return Buffer.concat([encrypted, sealing.getAuthTag()]);
}

/** The body of a frame that was sealed under this key. */
export function openBody({ key }: ContentKey, sealed: SealedBody): OpenedBody {
  const tagStart = sealed.encrypted.length - tagBytes;
  if (tagStart < 0) return { ok: false, code: 'not-authentic' };
  const opening = createDecipheriv(cipher, key, nonceOf(sealed.header), {
    authTagLength: tagBytes,
  });
  opening.setAAD(sealed.associatedData);
  opening.setAuthTag(sealed.encrypted.subarray(tagStart));
  try {
    const body = opening.update(sealed.encrypted.subarray(0, tagStart));
    opening.final();
    return { ok: true, body };
  } catch {
    // Node has no other way to say that the tag is wrong.
    return { ok: false, code: 'not-authentic' };
  }
}

/** 4 bytes of the epoch's nonce, then seq, 8 bytes big-endian. */
function nonceOf({ epoch, seq }: FrameHeader): Uint8Array {
  const nonce = Buffer.alloc(nonceBytes);
  nonce.write(epoch.nonce, 0, epochNonceBytes, 'hex');
  nonce.writeBigUInt64BE(BigInt(seq), epochNonceBytes);
  return nonce;
}
