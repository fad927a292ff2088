import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';

import {
  ContentInfo,
  EncryptedContent,
  EncryptedContentInfo,
  EnvelopedData,
  RecipientInfo,
  RecipientInfos,
} from '@peculiar/asn1-cms';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier } from '@peculiar/asn1-x509';

import { AuthEnvelopedData, GcmParameters, oids } from './cms-schema.ts';
import { agreementEntries, unwrapFromAgreement, wrapForAgreement } from './key-agreement.ts';
import { decryptFromTransport, encryptForTransport } from './key-transport.ts';
import { recipientsMax } from './recipient-pem.ts';
import { identifierText, type Recipient, type RecipientKey } from './recipients.ts';
import type { EnvelopeProblemCode, OpenedEnvelope } from './sealing-error.ts';

/*
 * CMS messages with encrypted content (RFC 5652, RFC 5083), as `openssl cms -encrypt` and `-decrypt` make and read them.
 *
 *   made   AuthEnvelopedData, AES-256-GCM; RSA keys by RSAES-OAEP, EC keys by ephemeral ECDH and AES-256 key wrap; DER
 *   read   that; AES-128 and -192; EnvelopedData with AES-CBC, which does not show an alteration; RSA keys by PKCS #1
 *          v1.5; BER of indefinite length, as `openssl cms -stream` makes it
 */

/** Of an envelope, and so of what is in it. */
export const envelopeBytesMax = 4 * 1_024 * 1_024;
/** Attempts with a private key for one envelope: each costs up to milliseconds. */
const attemptsMax = 16;
const nonceBytes = 12;
const tagBytes = 16;
const contentKeyBytes = 32;
const berOptions = { maxDepth: 32, maxNodes: 20_000, maxContentLength: envelopeBytesMax };

const gcmKeyBytes: Readonly<Record<string, number>> = {
  '2.16.840.1.101.3.4.1.6': 16,
  '2.16.840.1.101.3.4.1.26': 24,
  [oids.aes256Gcm]: 32,
};
const cbcKeyBytes: Readonly<Record<string, number>> = {
  '2.16.840.1.101.3.4.1.2': 16,
  '2.16.840.1.101.3.4.1.22': 24,
  '2.16.840.1.101.3.4.1.42': 32,
};

/**
 * `content` for every one of `recipients` (1 to 16), in DER. `openssl cms -decrypt -inform DER` opens it.
 * @throws RangeError when the content exceeds {@link envelopeBytesMax}.
 */
export function sealEnvelope(content: Uint8Array, recipients: readonly Recipient[]): Uint8Array {
  if (content.length > envelopeBytesMax - recipientsMax * 2_048) {
    throw new RangeError(`${content.length} bytes do not fit into an envelope`);
  }
  if (recipients.length === 0 || recipients.length > recipientsMax) {
    throw new RangeError(`an envelope has 1 to ${recipientsMax} recipients`);
  }
  const contentKey = randomBytes(contentKeyBytes);
  const nonce = randomBytes(nonceBytes);
  const sealing = createCipheriv('aes-256-gcm', contentKey, nonce);
  const encrypted = Buffer.concat([sealing.update(content), sealing.final()]);
  const parameters = new GcmParameters();
  parameters.nonce = new OctetString(nonce);
  parameters.tagBytes = tagBytes;
  const message = new AuthEnvelopedData();
  message.recipientInfos = new RecipientInfos(
    recipients.map((recipient) => recipientInfo(contentKey, recipient)),
  );
  message.authEncryptedContentInfo = new EncryptedContentInfo({
    contentType: oids.data,
    contentEncryptionAlgorithm: new AlgorithmIdentifier({
      algorithm: oids.aes256Gcm,
      parameters: AsnConvert.serialize(parameters),
    }),
    encryptedContent: new EncryptedContent({ value: new OctetString(encrypted) }),
  });
  message.mac = new OctetString(sealing.getAuthTag());
  const info = new ContentInfo({
    contentType: oids.authEnvelopedData,
    content: AsnConvert.serialize(message),
  });
  return new Uint8Array(AsnConvert.serialize(info));
}

/**
 * The content of an envelope for one of `keys`. Takes any bytes and never throws; work is bounded by 16 uses of a private
 * key and in proportion to the bytes.
 */
export function openEnvelope(bytes: Uint8Array, keys: readonly RecipientKey[]): OpenedEnvelope {
  if (bytes.length > envelopeBytesMax) {
    return shut('too-large', `at most ${envelopeBytesMax} bytes`);
  }
  let envelope: ParsedEnvelope;
  let attempts: readonly (() => Uint8Array | undefined)[];
  try {
    envelope = parseEnvelope(bytes);
    attempts = attemptsOf(envelope, keys).slice(0, attemptsMax);
  } catch (error) {
    if (error instanceof Unsupported) return shut('unsupported', error.message);
    return shut('not-an-envelope', 'not a CMS message with encrypted content');
  }
  let isForUs = false;
  for (const attempt of attempts) {
    const contentKey = quietly(attempt);
    if (contentKey === undefined) continue;
    isForUs = true;
    const content = quietly(() => envelope.decrypt(contentKey));
    if (content !== undefined) return { ok: true, content };
  }
  return isForUs
    ? shut('not-authentic', 'altered, or for another key')
    : shut('not-for-us', 'none of the recipients is a key that is known here');
}

/** Whether these bytes begin like a CMS message with encrypted content: cheap, and no proof. */
export function looksLikeEnvelope(bytes: Uint8Array): boolean {
  if (bytes[0] !== 0x30) return false;
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 32));
  return envelopeTypes.some((type) => head.includes(type));
}

const envelopeTypes = [
  Buffer.from('06092a864886f70d010703', 'hex'),
  Buffer.from('060b2a864886f70d0109100117', 'hex'),
];

class Unsupported extends Error {}

interface ParsedEnvelope {
  readonly recipientInfos: readonly RecipientInfo[];
  readonly keyBytes: number;
  /** @throws when the key is not right, or the content is not what was encrypted. */
  readonly decrypt: (contentKey: Uint8Array) => Uint8Array;
}

function parseEnvelope(bytes: Uint8Array): ParsedEnvelope {
  const info = AsnConvert.parse(bytes, ContentInfo, { berOptions });
  if (info.contentType === oids.authEnvelopedData) return parseAuthenticated(info.content);
  if (info.contentType !== oids.envelopedData) throw new Error('no encrypted content');
  const message = AsnConvert.parse(info.content, EnvelopedData, { berOptions });
  const { contentEncryptionAlgorithm: method } = message.encryptedContentInfo;
  const keyBytes = cbcKeyBytes[method.algorithm];
  if (keyBytes === undefined || !method.parameters) {
    throw new Unsupported(`EnvelopedData by ${method.algorithm}: use AES`);
  }
  const iv = new Uint8Array(AsnConvert.parse(method.parameters, OctetString).buffer);
  const encrypted = encryptedBytes(message.encryptedContentInfo);
  return {
    recipientInfos: Array.from(message.recipientInfos),
    keyBytes,
    decrypt: (contentKey) => {
      const opening = createDecipheriv(`aes-${keyBytes * 8}-cbc`, contentKey, iv);
      return Buffer.concat([opening.update(encrypted), opening.final()]);
    },
  };
}

function parseAuthenticated(content: ArrayBuffer): ParsedEnvelope {
  const message = AsnConvert.parse(content, AuthEnvelopedData, { berOptions });
  const { contentEncryptionAlgorithm: method } = message.authEncryptedContentInfo;
  const keyBytes = gcmKeyBytes[method.algorithm];
  if (keyBytes === undefined || !method.parameters) {
    throw new Unsupported(`AuthEnvelopedData by ${method.algorithm}: use AES-GCM`);
  }
  if (message.authAttrs !== undefined) throw new Unsupported('authenticated attributes');
  const parameters = AsnConvert.parse(method.parameters, GcmParameters);
  const nonce = new Uint8Array(parameters.nonce.buffer);
  const tag = new Uint8Array(message.mac.buffer);
  if (tag.length !== tagBytes || parameters.tagBytes !== tagBytes) {
    throw new Unsupported(`a tag of ${tag.length} bytes: use ${tagBytes}`);
  }
  const encrypted = encryptedBytes(message.authEncryptedContentInfo);
  return {
    recipientInfos: Array.from(message.recipientInfos),
    keyBytes,
    decrypt: (contentKey) => {
      const cipher = `aes-${keyBytes * 8}-gcm`;
      if (!isGcm(cipher)) throw new Unsupported(cipher);
      const opening = createDecipheriv(cipher, contentKey, nonce, { authTagLength: tagBytes });
      opening.setAuthTag(tag);
      return Buffer.concat([opening.update(encrypted), opening.final()]);
    },
  };
}

function isGcm(cipher: string): cipher is 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm' {
  return /^aes-(?:128|192|256)-gcm$/.test(cipher);
}

function encryptedBytes({ encryptedContent }: EncryptedContentInfo): Uint8Array {
  if (encryptedContent?.value !== undefined) return new Uint8Array(encryptedContent.value.buffer);
  const pieces = encryptedContent?.constructedValue;
  if (pieces === undefined) throw new Unsupported('the content is not in the message');
  return Buffer.concat(pieces.map((piece) => new Uint8Array(piece.buffer)));
}

/** Ways to the content key: with the keys that the recipients name first, then with all others. */
function attemptsOf(
  { recipientInfos, keyBytes }: ParsedEnvelope,
  keys: readonly RecipientKey[],
): readonly (() => Uint8Array | undefined)[] {
  const named: (() => Uint8Array | undefined)[] = [];
  const others: (() => Uint8Array | undefined)[] = [];
  const add = (
    type: 'rsa' | 'ec',
    identifier: string,
    attempt: (key: RecipientKey) => Uint8Array | undefined,
  ): void => {
    for (const key of keys) {
      if (key.privateKey.asymmetricKeyType !== type) continue;
      const list = key.identifiers.includes(identifier) ? named : others;
      list.push(() => attempt(key));
    }
  };
  for (const { ktri, kari } of recipientInfos.slice(0, recipientsMax)) {
    if (ktri !== undefined) {
      add('rsa', identifierText(ktri.rid), (key) => decryptFromTransport(ktri, key, keyBytes));
    }
    if (kari === undefined) continue;
    for (const { identifier, encryptedKey } of agreementEntries(kari).slice(0, recipientsMax)) {
      add('ec', identifier, (key) => unwrapFromAgreement(kari, encryptedKey, key));
    }
  }
  return [...named, ...others];
}

function recipientInfo(contentKey: Uint8Array, recipient: Recipient): RecipientInfo {
  return recipient.publicKey.asymmetricKeyType === 'rsa'
    ? new RecipientInfo({ ktri: encryptForTransport(contentKey, recipient) })
    : new RecipientInfo({ kari: wrapForAgreement(contentKey, recipient) });
}

/** Cryptography says by throwing that a key is not right, which is an outcome here. */
function quietly(attempt: () => Uint8Array | undefined): Uint8Array | undefined {
  try {
    return attempt();
  } catch {
    return undefined;
  }
}

function shut(code: EnvelopeProblemCode, rule: string): OpenedEnvelope {
  return { ok: false, problem: { code, rule } };
}
