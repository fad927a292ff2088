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

import { parseRecipientPem, recipientKeyProblem } from './recipient-pem.ts';
import { SealingError } from './sealing-error.ts';

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

/**
 * Whom the certificates and public keys in `pem` stand for.
 * @throws SealingError `recipient-unusable`, as {@link parseRecipientPem}.
 */
export function parseRecipients(pem: string): readonly Recipient[] {
  return parseRecipientPem(pem).map(({ publicKey, certificate }) => ({
    publicKey,
    identifier: certificate === null ? byKeyHash(publicKey) : byIssuer(certificate),
  }));
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
  const problem = recipientKeyProblem(privateKey);
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
