import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  X509Certificate,
} from 'node:crypto';

import { IssuerAndSerialNumber, RecipientIdentifier } from '@peculiar/asn1-cms';
import { AsnConvert } from '@peculiar/asn1-schema';
import { Certificate, SubjectKeyIdentifier, SubjectPublicKeyInfo } from '@peculiar/asn1-x509';

import { SealingError } from './sealing-error.ts';

/** Recipients of one envelope: keys that a reader has, and those that replace them. */
export const recipientsMax = 16;
/** Characters of PEM text with all of them. */
export const recipientPemCharsMax = 65_536;
const rsaBitsMin = 2_048;
const rsaBitsMax = 8_192;
const curves: readonly string[] = ['prime256v1', 'secp384r1', 'secp521r1'];

/** Whom an envelope is for. */
export interface Recipient {
  readonly publicKey: KeyObject;
  /** By issuer and serial number for a certificate, else by the SHA-1 of the key (RFC 5280, 4.2.1.2, method 1). */
  readonly identifier: RecipientIdentifier;
}

/** A private key that opens envelopes. */
export interface RecipientKey {
  readonly privateKey: KeyObject;
  /** DER of every name an envelope can call the key by. */
  readonly identifiers: readonly string[];
}

const pemBlock = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]+?-----END \1-----/g;

/**
 * The certificates and public keys in `pem`, RSA of 2048 bits and more or EC on P-256, P-384 or P-521.
 * @throws SealingError `recipient-unusable` for none, too many, or one that is something else.
 */
export function parseRecipients(pem: string): readonly Recipient[] {
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
  return blocks.map(([block, label = '']) => parseRecipient(block, label));
}

/**
 * A private key, with the certificates that were made for it.
 * @throws SealingError `key-unusable` when it is none, or encrypted.
 */
export function parseRecipientKey(
  keyPem: string,
  certificatesPem: readonly string[],
): RecipientKey {
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(keyPem);
  } catch (cause) {
    const message = 'not a PEM private key without a pass phrase';
    throw new SealingError('key-unusable', message, { needsSetup: true, cause });
  }
  const problem = keyProblem(privateKey);
  if (problem !== undefined) throw new SealingError('key-unusable', problem, { needsSetup: true });
  const publicKey = createPublicKey(privateKey);
  const identifiers = [identifierText(byKeyHash(publicKey))];
  for (const certificatePem of certificatesPem) {
    const certificate = new X509Certificate(certificatePem);
    if (!certificate.publicKey.equals(publicKey)) continue;
    identifiers.push(identifierText(byIssuer(certificate)));
    const named = certificateKeyIdentifier(certificate);
    if (named !== undefined) identifiers.push(identifierText(named));
  }
  return { privateKey, identifiers };
}

/** What {@link RecipientKey.identifiers} holds. */
export function identifierText(identifier: RecipientIdentifier): string {
  return Buffer.from(AsnConvert.serialize(identifier)).toString('base64');
}

function parseRecipient(block: string, label: string): Recipient {
  const recipient = readBlock(block, label);
  const problem = keyProblem(recipient.publicKey);
  if (problem !== undefined) throw unusable(problem);
  return recipient;
}

function readBlock(block: string, label: string): Recipient {
  if (label.includes('PRIVATE')) {
    throw unusable('a private key: give its certificate or public key, and keep this one secret');
  }
  try {
    if (label === 'CERTIFICATE') {
      const certificate = new X509Certificate(block);
      return { publicKey: certificate.publicKey, identifier: byIssuer(certificate) };
    }
    const publicKey = createPublicKey(block);
    return { publicKey, identifier: byKeyHash(publicKey) };
  } catch (cause) {
    throw unusable(`not a readable certificate or public key (${label})`, cause);
  }
}

function keyProblem(key: KeyObject): string | undefined {
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

function byIssuer(certificate: X509Certificate): RecipientIdentifier {
  const { issuer, serialNumber } = AsnConvert.parse(certificate.raw, Certificate).tbsCertificate;
  return new RecipientIdentifier({
    issuerAndSerialNumber: new IssuerAndSerialNumber({ issuer, serialNumber }),
  });
}

function byKeyHash(publicKey: KeyObject): RecipientIdentifier {
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const { subjectPublicKey } = AsnConvert.parse(spki, SubjectPublicKeyInfo);
  const hash = createHash('sha1').update(new Uint8Array(subjectPublicKey)).digest();
  return new RecipientIdentifier({ subjectKeyIdentifier: new SubjectKeyIdentifier(hash) });
}

const subjectKeyIdentifierOid = '2.5.29.14';

function certificateKeyIdentifier(certificate: X509Certificate): RecipientIdentifier | undefined {
  const { extensions = [] } = AsnConvert.parse(certificate.raw, Certificate).tbsCertificate;
  const found = Array.from(extensions).find(({ extnID }) => extnID === subjectKeyIdentifierOid);
  if (found === undefined) return undefined;
  return new RecipientIdentifier({
    subjectKeyIdentifier: AsnConvert.parse(found.extnValue.buffer, SubjectKeyIdentifier),
  });
}

function unusable(message: string, cause?: unknown): SealingError {
  return new SealingError('recipient-unusable', message, { needsSetup: true, cause });
}
