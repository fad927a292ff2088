import { derBoolean, derElement, derObjectIdentifier, derTag, type DerElement } from './der.ts';
import { extensionsOf, sequenceOf } from './x509-der.ts';

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

/** What our own checks read from a certificate's extensions. */
export interface CertificateNames {
  readonly uris: readonly string[];
  readonly usages: readonly string[];
  readonly isAuthority: boolean;
}

const certificateExtensionsTag = 0xa3;
const uriTag = 0x86;

/** @throws DerError for bytes that are no certificate (RFC 5280, 4.1). */
export function namesOf(der: Uint8Array): CertificateNames {
  const [signed] = sequenceOf(derElement(der, derTag.sequence));
  const extensions = extensionsOf(sequenceOf(signed).at(-1), certificateExtensionsTag);
  const itemsOf = (id: string): DerElement[] => {
    const value = extensions.get(id)?.value;
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
