import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';

import { SealingError } from './sealing-error.ts';

/** Recipients of one envelope: keys that a reader has, and those that replace them. */
export const recipientsMax = 16;
/** Characters of PEM text with all of them. */
export const recipientPemCharsMax = 32_768;
const rsaBitsMin = 2_048;
const rsaBitsMax = 8_192;
const curves: readonly string[] = ['prime256v1', 'secp384r1', 'secp521r1'];

/** What one PEM block holds; needs no ASN.1, so that whoever only checks a document loads none. */
export interface PemRecipient {
  readonly publicKey: KeyObject;
  /** Null where the block is a public key alone. */
  readonly certificate: X509Certificate | null;
}

const pemBlock = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]+?-----END \1-----/g;

/**
 * The certificates and public keys in `pem`, 1 to 16: RSA of 2048 to 8192 bits, or EC on P-256, P-384 or P-521.
 * @throws SealingError `recipient-unusable` for none, too many, or one that is something else.
 */
export function parseRecipientPem(pem: string): readonly PemRecipient[] {
  if (pem.length > recipientPemCharsMax) {
    throw unusable(`PEM text of ${pem.length} characters, at most ${recipientPemCharsMax}`);
  }
  const blocks = Array.from(pem.matchAll(pemBlock));
  if (blocks.length === 0) {
    throw unusable('no PEM block: give a certificate (BEGIN CERTIFICATE) or a public key');
  }
  if (blocks.length > recipientsMax) {
    throw unusable(`${blocks.length} recipients, at most ${recipientsMax}`);
  }
  return blocks.map(([block, label = '']) => {
    const recipient = readBlock(block, label);
    const problem = recipientKeyProblem(recipient.publicKey);
    if (problem !== undefined) throw unusable(problem);
    return recipient;
  });
}

/** Why nothing is sealed for this key; undefined for one that will do. */
export function recipientKeyProblem(key: KeyObject): string | undefined {
  const { modulusLength = 0, namedCurve = '' } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'rsa') {
    return rsaBitsMin <= modulusLength && modulusLength <= rsaBitsMax
      ? undefined
      : `an RSA key of ${modulusLength} bits: take ${rsaBitsMin} to ${rsaBitsMax}`;
  }
  if (key.asymmetricKeyType === 'ec') {
    return curves.includes(namedCurve)
      ? undefined
      : `an EC key on ${namedCurve}: take P-256, P-384 or P-521`;
  }
  return `a key of type ${key.asymmetricKeyType ?? 'unknown'}: take RSA or EC`;
}

function readBlock(block: string, label: string): PemRecipient {
  if (label.includes('PRIVATE')) {
    throw unusable('a private key: give its certificate or public key, and keep this one secret');
  }
  try {
    if (label === 'CERTIFICATE') {
      const certificate = new X509Certificate(block);
      return { publicKey: certificate.publicKey, certificate };
    }
    return { publicKey: createPublicKey(block), certificate: null };
  } catch (cause) {
    throw unusable(`not a readable certificate or public key (${label})`, cause);
  }
}

function unusable(message: string, cause?: unknown): SealingError {
  return new SealingError('recipient-unusable', message, { needsSetup: true, cause });
}
