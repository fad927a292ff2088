import { verify, X509Certificate } from 'node:crypto';

import {
  DerError,
  derBits,
  derBoolean,
  derElement,
  derElements,
  derObjectIdentifier,
  derTag,
  derTimeMs,
  derUnsigned,
  expectTag,
  type DerElement,
} from './der.ts';

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyedCertificate {
  readonly cert: string;
  readonly key: string;
}

/** Milliseconds since the Unix epoch; certificates have whole seconds. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/**
 * The subject of every site's authority. It is the same for all of them because a TLS server sends the subjects of the
 * authorities it trusts to whoever connects: a neighbour must not learn by them who the other neighbours are. Which
 * authority is meant is told by key identifiers.
 */
export const authoritySubject = 'CN=Isobar site authority';

/** What a certificate for signatures is for, instead of TLS; below the documentation arc of RFC 5612. */
export const signingUsage = '1.3.6.1.4.1.32473.1.1';

export const crlNumberId = '2.5.29.20';
const subjectAltNameId = '2.5.29.17';
const basicConstraintsId = '2.5.29.19';
const extendedKeyUsageId = '2.5.29.37';
/** RFC 5758, 3.2; the only one that our authorities sign with. */
const ecdsaWithSha256Id = '1.2.840.10045.4.3.2';

/** `urn:isobar:site:<name>`: what a site is called in its certificates (subject alternative name, URI). */
export function siteUri(siteName: string): string {
  return `urn:isobar:site:${siteName}`;
}

/** A certificate that its authority has withdrawn. */
export interface Revocation {
  /** Hexadecimal, lower case. */
  readonly serial: string;
  readonly revokedAtMs: number;
}

/** What a verified list says. */
export interface RevocationList {
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** Serials in hexadecimal, lower case, without leading zeros. */
  readonly serials: ReadonlySet<string>;
}

/**
 * The list in `pem` (RFC 5280, 5.1), when the authority of `authorityCertificate` signed it with ECDSA and SHA-256; undefined for any
 * other text.
 */
export function readRevocationList(
  pem: string,
  authorityCertificate: string,
): RevocationList | undefined {
  try {
    const { publicKey } = new X509Certificate(authorityCertificate);
    return readList(derOf(pem), (signed, signature) =>
      verify('sha256', signed, publicKey, signature),
    );
  } catch {
    // Bytes from outside that are no list; the caller counts and reports it.
    return undefined;
  }
}

const listPem = /^-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----$/;

function derOf(pem: string): Uint8Array {
  const [, base64] = listPem.exec(pem.trim()) ?? [];
  if (base64 === undefined) throw new DerError('no PEM of a revocation list');
  return Buffer.from(base64, 'base64');
}

/** @throws DerError */
function readList(
  der: Uint8Array,
  isSigned: (signed: Uint8Array, signature: Uint8Array) => boolean,
): RevocationList | undefined {
  const [signed, algorithm, signature] = derElements(derElement(der, derTag.sequence).content);
  const list = expectTag(signed, derTag.sequence);
  if (!isSigned(list.bytes, derBits(signature))) return undefined;
  // Of version 2, as what has a number must be.
  const [, inner, issuer, thisUpdate, nextUpdate, ...rest] = derElements(list.content);
  if (algorithmOf(algorithm) !== ecdsaWithSha256Id || algorithmOf(inner) !== ecdsaWithSha256Id) {
    return undefined;
  }
  expectTag(issuer, derTag.sequence);
  const extensions = extensionsOf(rest.at(-1), listExtensionsTag);
  const [entries] = rest.length > 1 ? rest : [];
  const number = extensions.get(crlNumberId);
  if (number === undefined) return undefined;
  return {
    number: Number(`0x${derUnsigned(derElement(number, derTag.integer))}`),
    thisUpdateMs: derTimeMs(thisUpdate),
    nextUpdateMs: derTimeMs(nextUpdate),
    serials: new Set(
      entries === undefined
        ? []
        : sequenceOf(entries).map((entry) => derUnsigned(sequenceOf(entry)[0])),
    ),
  };
}

/** Serials compare as numbers: hexadecimal in lower case without leading zeros. */
export function normalSerial(serial: string): string {
  return serial.toLowerCase().replace(/^0+(?=.)/, '');
}

/** What our own checks read from a certificate's extensions. */
export interface CertificateNames {
  readonly uris: readonly string[];
  readonly usages: readonly string[];
  readonly isAuthority: boolean;
}

const listExtensionsTag = 0xa0;
const certificateExtensionsTag = 0xa3;
const uriTag = 0x86;

/** @throws DerError for bytes that are no certificate (RFC 5280, 4.1). */
export function namesOf(der: Uint8Array): CertificateNames {
  const [signed] = sequenceOf(derElement(der, derTag.sequence));
  const extensions = extensionsOf(sequenceOf(signed).at(-1), certificateExtensionsTag);
  const itemsOf = (id: string): DerElement[] => {
    const value = extensions.get(id);
    return value === undefined ? [] : sequenceOf(derElement(value, derTag.sequence));
  };
  const [isAuthority] = itemsOf(basicConstraintsId);
  return {
    uris: itemsOf(subjectAltNameId)
      .filter(({ tag }) => tag === uriTag)
      .map(({ content }) => Buffer.from(content).toString('latin1')),
    usages: itemsOf(extendedKeyUsageId).map((usage) => derObjectIdentifier(usage)),
    isAuthority: isAuthority?.tag === derTag.boolean && derBoolean(isAuthority),
  };
}

function sequenceOf(element: DerElement | undefined): DerElement[] {
  return derElements(expectTag(element, derTag.sequence).content);
}

function algorithmOf(element: DerElement | undefined): string {
  return derObjectIdentifier(sequenceOf(element)[0]);
}

/** Values by identifier; none where `element` is something else. @throws DerError also for one that is there twice. */
function extensionsOf(element: DerElement | undefined, tag: number): Map<string, Uint8Array> {
  const values = new Map<string, Uint8Array>();
  if (element?.tag !== tag) return values;
  for (const extension of sequenceOf(derElement(element.content, derTag.sequence))) {
    const parts = sequenceOf(extension);
    const id = derObjectIdentifier(parts[0]);
    if (values.has(id)) throw new DerError(`extension ${id} is there twice`);
    values.set(id, expectTag(parts.at(-1), derTag.octetString).content);
  }
  return values;
}
