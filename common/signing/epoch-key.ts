import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto';

const curve = 'P-256';
/** r and s of IEEE P1363, 32 bytes each. */
export const frameSignatureBytes = 64;
const scalarBytes = 32;
const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const halfOrder = Buffer.from((order >> 1n).toString(16).padStart(2 * scalarBytes, '0'), 'hex');

/** The key that signs one epoch's frames; ECDSA on P-256 with SHA-256 (docs/decisions/epoch-keys.md). */
export interface EpochKey {
  readonly privateKey: KeyObject;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
}

export function newEpochKey(): EpochKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: curve });
  return { privateKey, publicKey: publicKey.export({ type: 'spki', format: 'der' }) };
}

/** PKCS #8, DER: what the writer's own database keeps, and nothing sends. */
export function epochKeyToBytes({ privateKey }: EpochKey): Uint8Array {
  return privateKey.export({ type: 'pkcs8', format: 'der' });
}

/** @throws when the bytes are not what {@link epochKeyToBytes} gave. */
export function epochKeyFromBytes(bytes: Uint8Array): EpochKey {
  const privateKey = createPrivateKey({
    key: Buffer.from(bytes),
    format: 'der',
    type: 'pkcs8',
  });
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  return { privateKey, publicKey };
}

/** Undefined unless the bytes are a public key on P-256. */
export function epochPublicKey(bytes: Uint8Array): KeyObject | undefined {
  try {
    const key = createPublicKey({ key: Buffer.from(bytes), format: 'der', type: 'spki' });
    return key.asymmetricKeyDetails?.namedCurve === 'prime256v1' ? key : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Signs what a frame's signature covers. Of the two signatures (r, s) and (r, -s) that ECDSA takes for equal this is
 * the one with the smaller s, so that nobody on the way can give a signed frame another hash and so break the chain.
 */
export function signFrame(signedBytes: Uint8Array, { privateKey }: EpochKey): Uint8Array {
  const signature = sign('sha256', signedBytes, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  if (isSmallS(signature)) return signature;
  const s = BigInt(`0x${signature.toString('hex', scalarBytes)}`);
  signature.write((order - s).toString(16).padStart(2 * scalarBytes, '0'), scalarBytes, 'hex');
  return signature;
}

/** Whether the holder of the epoch's key signed exactly these bytes. */
export function isFrameSignature(
  signature: Uint8Array,
  signedBytes: Uint8Array,
  publicKey: KeyObject,
): boolean {
  return (
    signature.length === frameSignatureBytes &&
    isSmallS(signature) &&
    verify('sha256', signedBytes, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)
  );
}

function isSmallS(signature: Uint8Array): boolean {
  return Buffer.compare(signature.subarray(scalarBytes), halfOrder) <= 0;
}
