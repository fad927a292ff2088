import assert from 'node:assert';
import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';

import type { CertificateUse } from '../identity/tls-identity.ts';

/** Names of RFC 9421 section 6.2.2 for the two kinds of keys that sites sign requests with. */
export type SignatureAlgorithm = 'ed25519' | 'ecdsa-p256-sha256';

/** Whose keys sign and verify requests between sites. */
export interface SiteKeys {
  /** This site's newest private key, Ed25519 or P-256. */
  signingKey(): KeyObject;
  /** Its certificate, base64 of DER, to be sent along; undefined where neighbours have the key on another way. */
  signingCertificate(): string | undefined;
  /**
   * A public key that the relation's neighbour signs with; undefined when we know none. During a rotation there may be
   * two, told apart by `keyId` ({@link keyIdOf}); an implementation with one key per relation may ignore it.
   * @param certificate what was sent along, unverified
   */
  verificationKeyOf(
    relation: string,
    keyId: string,
    certificate: string | undefined,
    use: KeyUse,
  ): KeyObject | undefined;
}

/** What a signature is under: an ordinary request or answer, or one that carries revocation lists. */
export type KeyUse = Extract<CertificateUse, 'signing' | 'lists'>;

/** Carries {@link SiteKeys.signingCertificate} in requests and answers. */
export const certificateField = 'isobar-certificate';
/** Characters of base64: far above any certificate of ours. */
const certificateCharsMax = 8_192;

/** The certificate that was sent along; undefined for none, several, or what is too long. */
export function certificateIn(
  headers: Readonly<Record<string, readonly string[] | undefined>>,
): string | undefined {
  const [value, second] = headers[certificateField] ?? [];
  if (value === undefined || second !== undefined) return undefined;
  return value.length <= certificateCharsMax ? value : undefined;
}

/** The fields that send it along. */
export function certificateFields(keys: SiteKeys): Record<string, string> {
  const certificate = keys.signingCertificate();
  return certificate === undefined ? {} : { [certificateField]: certificate };
}

/** The algorithm that a key stands for. Never taken from a message, so that nobody can make us use a key differently. */
export function algorithmOf(key: KeyObject): SignatureAlgorithm {
  if (key.asymmetricKeyType === 'ed25519') return 'ed25519';
  const curve = key.asymmetricKeyDetails?.namedCurve;
  assert(
    key.asymmetricKeyType === 'ec' && curve === 'prime256v1',
    `requests are signed with Ed25519 or P-256, not ${key.asymmetricKeyType} ${curve ?? ''}`,
  );
  return 'ecdsa-p256-sha256';
}

/** The name of a key in signatures: SHA-256 of its SubjectPublicKeyInfo, base64url, 43 characters. */
export function keyIdOf(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  const der = publicKey.export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(der).digest('base64url');
}

/** 64 bytes with either algorithm: ECDSA as r and s (IEEE P1363), as RFC 9421 section 3.3.4 has it. */
export const signatureBytes = 64;

/** Signs `text` by the algorithm of the key. */
export function signText(text: string, key: KeyObject): Buffer {
  const bytes = Buffer.from(text);
  return algorithmOf(key) === 'ed25519'
    ? sign(null, bytes, key)
    : sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' });
}

/** Whether `signature` over `text` is of the key. */
export function verifyText(text: string, signature: Uint8Array, key: KeyObject): boolean {
  const bytes = Buffer.from(text);
  return algorithmOf(key) === 'ed25519'
    ? verify(null, bytes, key, signature)
    : verify('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' }, signature);
}
