import { constants, privateDecrypt, publicEncrypt, randomBytes } from 'node:crypto';

import { CMSVersion, KeyTransRecipientInfo } from '@peculiar/asn1-cms';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier } from '@peculiar/asn1-x509';

import { OaepParameters, oids } from './cms-schema.ts';
import type { Recipient, RecipientKey } from './recipients.ts';

const oaepDigests: Readonly<Record<string, string>> = {
  [oids.sha1]: 'sha1',
  [oids.sha256]: 'sha256',
  [oids.sha384]: 'sha384',
  [oids.sha512]: 'sha512',
};
const paddingBytesMin = 8;

/** The content key for a recipient with an RSA key, by RSAES-OAEP with SHA-256 (RFC 3560, RFC 8017). */
export function encryptForTransport(
  contentKey: Uint8Array,
  recipient: Recipient,
): KeyTransRecipientInfo {
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  const encryptedKey = publicEncrypt(
    { key: recipient.publicKey, padding, oaepHash: 'sha256' },
    contentKey,
  );
  const parameters = new OaepParameters();
  parameters.hash = new AlgorithmIdentifier({ algorithm: oids.sha256, parameters: derNull() });
  parameters.mask = new AlgorithmIdentifier({
    algorithm: oids.mgf1,
    parameters: AsnConvert.serialize(parameters.hash),
  });
  return new KeyTransRecipientInfo({
    version:
      recipient.identifier.issuerAndSerialNumber === undefined ? CMSVersion.v2 : CMSVersion.v0,
    rid: recipient.identifier,
    keyEncryptionAlgorithm: new AlgorithmIdentifier({
      algorithm: oids.rsaOaep,
      parameters: AsnConvert.serialize(parameters),
    }),
    encryptedKey: new OctetString(encryptedKey),
  });
}

/**
 * The content key of `keyBytes`, or undefined when it can't be had with this key. With PKCS #1 v1.5 a wrong padding
 * gives a random key instead, so that nobody learns from us whether a padding was right (RFC 3218, 2.3).
 */
export function decryptFromTransport(
  info: KeyTransRecipientInfo,
  { privateKey }: RecipientKey,
  keyBytes: number,
): Uint8Array | undefined {
  const { algorithm, parameters } = info.keyEncryptionAlgorithm;
  const encryptedKey = new Uint8Array(info.encryptedKey.buffer);
  if (algorithm === oids.rsaEncryption) {
    // Node does not decrypt this padding any more, though it is what openssl makes unless it is told to use OAEP.
    const padded = privateDecrypt(
      { key: privateKey, padding: constants.RSA_NO_PADDING },
      encryptedKey,
    );
    return withoutPadding(padded, keyBytes);
  }
  if (algorithm !== oids.rsaOaep) return undefined;
  const oaepHash = oaepDigest(parameters ?? undefined);
  if (oaepHash === undefined) return undefined;
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  return privateDecrypt({ key: privateKey, padding, oaepHash }, encryptedKey);
}

/** 00 02, at least eight bytes that are not 0, 00, key. Looks at every byte whatever it finds. */
function withoutPadding(padded: Uint8Array, keyBytes: number): Uint8Array {
  const substitute = randomBytes(keyBytes);
  const keyStart = padded.length - keyBytes;
  if (keyStart < paddingBytesMin + 3) return substitute;
  let wrong = (padded[0] ?? 1) | ((padded[1] ?? 0) ^ 2) | (padded[keyStart - 1] ?? 1);
  for (let index = 2; index < keyStart - 1; index += 1) {
    wrong |= padded[index] === 0 ? 1 : 0;
  }
  const key = Buffer.from(padded.subarray(keyStart));
  return wrong === 0 ? key : substitute;
}

/** Undefined for a digest that is not known, a mask made with another one, or a label. */
function oaepDigest(parameters: ArrayBuffer | undefined): string | undefined {
  if (parameters === undefined) return oaepDigests[oids.sha1];
  const { hash, mask, source } = AsnConvert.parse(parameters, OaepParameters);
  if (source !== undefined) return undefined;
  const maskHash = mask?.parameters
    ? AsnConvert.parse(mask.parameters, AlgorithmIdentifier).algorithm
    : oids.sha1;
  const digest = hash?.algorithm ?? oids.sha1;
  return maskHash === digest ? oaepDigests[digest] : undefined;
}

function derNull(): ArrayBuffer {
  return Uint8Array.of(5, 0).buffer;
}
