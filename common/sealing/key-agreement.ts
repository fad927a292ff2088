import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';

import {
  CMSVersion,
  KeyAgreeRecipientIdentifier,
  KeyAgreeRecipientInfo,
  OriginatorIdentifierOrKey,
  OriginatorPublicKey,
  RecipientEncryptedKey,
  RecipientEncryptedKeys,
  RecipientIdentifier,
  RecipientKeyIdentifier,
} from '@peculiar/asn1-cms';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier, SubjectPublicKeyInfo } from '@peculiar/asn1-x509';

import { EccSharedInfo, oids } from './cms-schema.ts';
import { identifierText, type Recipient, type RecipientKey } from './recipients.ts';

/** dhSinglePass-stdDH with the digest of its key derivation (RFC 5753, 7.1.4); openssl uses SHA-1 by default. */
const derivationDigests: Readonly<Record<string, string>> = {
  '1.3.133.16.840.63.0.2': 'sha1',
  '1.3.132.1.11.0': 'sha224',
  [oids.ecdhSha256]: 'sha256',
  '1.3.132.1.11.2': 'sha384',
  '1.3.132.1.11.3': 'sha512',
};
/** AES key wrap (RFC 3394) with the length of its key. */
const wraps: Readonly<Record<string, { readonly cipher: string; readonly keyBytes: number }>> = {
  '2.16.840.1.101.3.4.1.5': { cipher: 'id-aes128-wrap', keyBytes: 16 },
  '2.16.840.1.101.3.4.1.25': { cipher: 'id-aes192-wrap', keyBytes: 24 },
  [oids.aes256Wrap]: { cipher: 'id-aes256-wrap', keyBytes: 32 },
};
const wrapNonce = Buffer.alloc(8, 0xa6);

/** The content key for a recipient with an EC key: an ephemeral key agrees with it on one that wraps it (RFC 5753). */
export function wrapForAgreement(
  contentKey: Uint8Array,
  recipient: Recipient,
): KeyAgreeRecipientInfo {
  const namedCurve = recipient.publicKey.asymmetricKeyDetails?.namedCurve ?? '';
  const ephemeral = generateKeyPairSync('ec', { namedCurve });
  const shared = diffieHellman({
    privateKey: ephemeral.privateKey,
    publicKey: recipient.publicKey,
  });
  const wrap = new AlgorithmIdentifier({ algorithm: oids.aes256Wrap });
  const key = derive(shared, 'sha256', wrap, undefined, 32);
  const wrapping = createCipheriv('id-aes256-wrap', key, wrapNonce);
  const encryptedKey = Buffer.concat([wrapping.update(contentKey), wrapping.final()]);
  const spki = ephemeral.publicKey.export({ type: 'spki', format: 'der' });
  return new KeyAgreeRecipientInfo({
    version: CMSVersion.v3,
    originator: new OriginatorIdentifierOrKey({
      originatorKey: new OriginatorPublicKey({
        algorithm: new AlgorithmIdentifier({ algorithm: oids.ecPublicKey }),
        publicKey: AsnConvert.parse(spki, SubjectPublicKeyInfo).subjectPublicKey,
      }),
    }),
    keyEncryptionAlgorithm: new AlgorithmIdentifier({
      algorithm: oids.ecdhSha256,
      parameters: AsnConvert.serialize(wrap),
    }),
    recipientEncryptedKeys: new RecipientEncryptedKeys([
      new RecipientEncryptedKey({
        rid: agreementIdentifier(recipient.identifier),
        encryptedKey: new OctetString(encryptedKey),
      }),
    ]),
  });
}

/** The names that recipients have in `info`, each with its wrapped key. */
export function agreementEntries(
  info: KeyAgreeRecipientInfo,
): readonly { readonly identifier: string; readonly encryptedKey: Uint8Array }[] {
  return Array.from(info.recipientEncryptedKeys, ({ rid, encryptedKey }) => ({
    identifier: identifierText(transportIdentifier(rid)),
    encryptedKey: new Uint8Array(encryptedKey.buffer),
  }));
}

/** The content key, or undefined when it was not wrapped for this key, or in a way that is not read here. */
export function unwrapFromAgreement(
  info: KeyAgreeRecipientInfo,
  encryptedKey: Uint8Array,
  { privateKey }: RecipientKey,
): Uint8Array | undefined {
  const { algorithm, parameters } = info.keyEncryptionAlgorithm;
  const digest = derivationDigests[algorithm];
  const originator = info.originator.originatorKey;
  if (digest === undefined || originator === undefined || !parameters) return undefined;
  const wrap = AsnConvert.parse(parameters, AlgorithmIdentifier);
  const method = wraps[wrap.algorithm];
  if (method === undefined) return undefined;
  const publicKey = originatorKey(originator.publicKey, privateKey);
  const shared = diffieHellman({ privateKey, publicKey });
  const key = derive(shared, digest, wrap, info.ukm, method.keyBytes);
  const unwrapping = createDecipheriv(method.cipher, key, wrapNonce);
  return Buffer.concat([unwrapping.update(encryptedKey), unwrapping.final()]);
}

/** On the recipient's own curve: the parameters are left out in messages, and Node refuses a point that is not on it. */
function originatorKey(point: ArrayBuffer, privateKey: KeyObject): KeyObject {
  const own = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  const spki = AsnConvert.parse(own, SubjectPublicKeyInfo);
  spki.subjectPublicKey = point;
  const der = Buffer.from(AsnConvert.serialize(spki));
  return createPublicKey({ key: der, format: 'der', type: 'spki' });
}

/** The key derivation of ANSI X9.63 (SEC 1, 3.6.1) over the ECC-CMS-SharedInfo of RFC 5753, 7.2. */
function derive(
  shared: Uint8Array,
  digest: string,
  wrap: AlgorithmIdentifier,
  ukm: OctetString | undefined,
  keyBytes: number,
): Uint8Array {
  const info = new EccSharedInfo();
  info.keyInfo = wrap;
  if (ukm !== undefined) info.entityUInfo = ukm;
  info.suppPubInfo = new OctetString(uint32(keyBytes * 8));
  const infoBytes = new Uint8Array(AsnConvert.serialize(info));
  const blocks: Uint8Array[] = [];
  let length = 0;
  for (let counter = 1; length < keyBytes; counter += 1) {
    const hash = createHash(digest).update(shared).update(uint32(counter)).update(infoBytes);
    const block = hash.digest();
    blocks.push(block);
    length += block.length;
  }
  return Buffer.concat(blocks).subarray(0, keyBytes);
}

function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function agreementIdentifier(identifier: RecipientIdentifier): KeyAgreeRecipientIdentifier {
  const { issuerAndSerialNumber, subjectKeyIdentifier } = identifier;
  if (issuerAndSerialNumber !== undefined) {
    return new KeyAgreeRecipientIdentifier({ issuerAndSerialNumber });
  }
  return new KeyAgreeRecipientIdentifier({
    rKeyId: new RecipientKeyIdentifier(
      subjectKeyIdentifier === undefined ? {} : { subjectKeyIdentifier },
    ),
  });
}

function transportIdentifier(rid: KeyAgreeRecipientIdentifier): RecipientIdentifier {
  if (rid.issuerAndSerialNumber !== undefined) {
    return new RecipientIdentifier({ issuerAndSerialNumber: rid.issuerAndSerialNumber });
  }
  const subjectKeyIdentifier = rid.rKeyId?.subjectKeyIdentifier;
  return new RecipientIdentifier(
    subjectKeyIdentifier === undefined ? {} : { subjectKeyIdentifier },
  );
}
