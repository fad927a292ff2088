// oxlint-disable-next-line import/no-unassigned-import -- the ASN.1 decorators need it, and before them
import 'reflect-metadata';
import { createPrivateKey, generateKeyPairSync, randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';

import { AsnConvert } from '@peculiar/asn1-schema';
import {
  GeneralName as AsnGeneralName,
  GeneralSubtree,
  GeneralSubtrees,
  Name as AsnName,
  NameConstraints,
  CRLNumber,
} from '@peculiar/asn1-x509';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
  X509Crl,
  X509CrlGenerator,
  X509CrlReason,
  type JsonGeneralName,
} from '@peculiar/x509';

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

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const subjectKeyIdentifierId = '2.5.29.14';
const nameConstraintsId = '2.5.29.30';
const crlNumberId = '2.5.29.20';
const serialBytes = 16;

/** `urn:isobar:site:<name>`: what a site is called in its certificates (subject alternative name, URI). */
export function siteUri(siteName: string): string {
  return `urn:isobar:site:${siteName}`;
}

/**
 * A self-signed P-256 authority for certificates of `siteName` alone: no authority below it (path length 0), and a
 * critical name constraint on the subject. The constraint is on the directory name, as URI constraints do not apply to
 * URNs (RFC 5280, 4.2.1.10).
 */
export async function createAuthority(
  siteName: string,
  validity: Validity,
): Promise<KeyedCertificate> {
  const { key, keys } = await generateKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      name: authoritySubject,
      serialNumber: newSerial(),
      ...datesOf(validity),
      signingAlgorithm: ecdsa,
      keys,
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        nameConstraints(siteName),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { cert: `${certificate.toString('pem')}\n`, key };
}

/** A certificate with a new key for both ends of TLS. `hosts` are DNS names and IP addresses that the site listens on. */
export function issueLeaf(
  authority: KeyedCertificate,
  subject: { readonly siteName: string; readonly hosts: readonly string[] },
  validity: Validity,
): Promise<KeyedCertificate> {
  const usage = [ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth];
  return issue(authority, subject, usage, validity);
}

/** A certificate with a new key for signed requests and countersignatures; no use for TLS. */
export function issueSigningCertificate(
  authority: KeyedCertificate,
  siteName: string,
  validity: Validity,
): Promise<KeyedCertificate> {
  return issue(authority, { siteName, hosts: [] }, [signingUsage], validity);
}

async function issue(
  authority: KeyedCertificate,
  { siteName, hosts }: { readonly siteName: string; readonly hosts: readonly string[] },
  usage: readonly string[],
  validity: Validity,
): Promise<KeyedCertificate> {
  const { key, keys } = await generateKeys();
  const names: JsonGeneralName[] = [
    { type: 'url', value: siteUri(siteName) },
    ...hosts.map((host): JsonGeneralName => ({
      type: isIP(host) === 0 ? 'dns' : 'ip',
      value: host,
    })),
  ];
  const certificate = await X509CertificateGenerator.create(
    {
      subject: `CN=${siteName}`,
      issuer: authoritySubject,
      serialNumber: newSerial(),
      ...datesOf(validity),
      signingAlgorithm: ecdsa,
      publicKey: keys.publicKey,
      signingKey: await importSigningKey(authority.key),
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([...usage], false),
        new SubjectAlternativeNameExtension(names, false),
        new AuthorityKeyIdentifierExtension(keyIdentifierOf(authority.cert)),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { cert: `${certificate.toString('pem')}\n`, key };
}

/** A certificate that its authority has withdrawn. */
export interface Revocation {
  /** Hexadecimal, lower case. */
  readonly serial: string;
  readonly revokedAtMs: number;
}

/** An authority's list of withdrawn certificates (RFC 5280, 5), as PEM with the label that Node and OpenSSL expect. */
export async function createRevocationList(
  authority: KeyedCertificate,
  list: {
    /** Grows with each list of the authority. */
    readonly number: number;
    readonly thisUpdateMs: number;
    readonly nextUpdateMs: number;
    readonly revocations: readonly Revocation[];
  },
): Promise<string> {
  const crl = await X509CrlGenerator.create(
    {
      issuer: authoritySubject,
      thisUpdate: new Date(list.thisUpdateMs),
      nextUpdate: new Date(list.nextUpdateMs),
      signingAlgorithm: ecdsa,
      signingKey: await importSigningKey(authority.key),
      entries: list.revocations.map(({ serial, revokedAtMs }) => ({
        serialNumber: serial,
        revocationDate: new Date(revokedAtMs),
        reason: X509CrlReason.keyCompromise,
      })),
      extensions: [
        new AuthorityKeyIdentifierExtension(keyIdentifierOf(authority.cert)),
        new Extension(crlNumberId, false, AsnConvert.serialize(new CRLNumber(list.number))),
      ],
    },
    webcrypto,
  );
  const base64 = Buffer.from(crl.rawData).toString('base64');
  const lines = base64.match(/.{1,64}/g) ?? [];
  return ['-----BEGIN X509 CRL-----', ...lines, '-----END X509 CRL-----', ''].join('\n');
}

/** What a verified list says. */
export interface RevocationList {
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** Serials in hexadecimal, lower case, without leading zeros. */
  readonly serials: ReadonlySet<string>;
}

/** The list in `pem`, when the authority of `authorityCertificate` signed it; undefined for any other text. */
export async function readRevocationList(
  pem: string,
  authorityCertificate: string,
): Promise<RevocationList | undefined> {
  try {
    const crl = new X509Crl(pem.replaceAll('X509 CRL', 'CRL'));
    const publicKey = new X509Certificate(authorityCertificate);
    if (!(await crl.verify({ publicKey }, webcrypto))) return undefined;
    const number = crl.getExtension(crlNumberId);
    if (crl.nextUpdate === undefined || number === null) return undefined;
    return {
      // The parser gives large numbers as text.
      number: Number(String(AsnConvert.parse(number.value, CRLNumber).value)),
      thisUpdateMs: crl.thisUpdate.getTime(),
      nextUpdateMs: crl.nextUpdate.getTime(),
      serials: new Set(crl.entries.map((entry) => normalSerial(entry.serialNumber))),
    };
  } catch {
    // Bytes from outside that are no list; the caller counts and reports it.
    return undefined;
  }
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

/** @throws Error for bytes that are no certificate. */
export function namesOf(der: Uint8Array): CertificateNames {
  const certificate = new X509Certificate(Uint8Array.from(der));
  const names = certificate.getExtension(SubjectAlternativeNameExtension)?.names.items ?? [];
  return {
    uris: names.filter(({ type }) => type === 'url').map(({ value }) => value),
    usages: (certificate.getExtension(ExtendedKeyUsageExtension)?.usages ?? []).map(String),
    isAuthority: certificate.getExtension(BasicConstraintsExtension)?.ca === true,
  };
}

/**
 * What is wrong with an authority that a neighbour hands over, for the site that it calls itself; undefined when nothing
 * is: self-signed P-256 with the shared subject, for this site alone, with no authority below it.
 */
export async function authorityProblem(pem: string, siteName: string): Promise<string | undefined> {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    return 'it is no certificate';
  }
  const constraints = certificate.getExtension(BasicConstraintsExtension);
  if (constraints?.ca !== true || constraints.pathLength !== 0) {
    return 'it is no authority of path length 0';
  }
  if (certificate.subject !== authoritySubject || certificate.issuer !== authoritySubject) {
    return `its subject and issuer must be ${authoritySubject}`;
  }
  const algorithm: { readonly namedCurve?: unknown } = certificate.publicKey.algorithm;
  if (algorithm.namedCurve !== ecdsa.namedCurve) return 'its key is not of curve P-256';
  if (!(await certificate.verify({ signatureOnly: true }, webcrypto))) {
    return 'it is not signed by itself';
  }
  const found = certificate.getExtension(nameConstraintsId);
  const expected = nameConstraints(siteName);
  const isOwnSpace =
    found?.critical === true && Buffer.from(found.value).equals(Buffer.from(expected.value));
  return isOwnSpace ? undefined : `it is not constrained to certificates of ${siteName}`;
}

function nameConstraints(siteName: string): Extension {
  const subject = AsnConvert.parse(new Name(`CN=${siteName}`).toArrayBuffer(), AsnName);
  const base = new AsnGeneralName({ directoryName: subject });
  const permittedSubtrees = new GeneralSubtrees([new GeneralSubtree({ base })]);
  const constraints = new NameConstraints({ permittedSubtrees });
  return new Extension(nameConstraintsId, true, AsnConvert.serialize(constraints));
}

function keyIdentifierOf(certificatePem: string): string {
  const certificate = new X509Certificate(certificatePem);
  const extension = certificate.getExtension<SubjectKeyIdentifierExtension>(subjectKeyIdentifierId);
  if (extension === null) throw new TypeError('an authority of ours has a subject key identifier');
  return extension.keyId;
}

/** Positive, so the first bit is clear (RFC 5280, 4.1.2.2). */
function newSerial(): string {
  const bytes = randomBytes(serialBytes);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

function datesOf({ notBeforeMs, notAfterMs }: Validity): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(notBeforeMs), notAfter: new Date(notAfterMs) };
}

async function generateKeys(): Promise<{ key: string; keys: webcrypto.CryptoKeyPair }> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  const key = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
  const verifying = await webcrypto.subtle.importKey('spki', spki, ecdsa, true, ['verify']);
  return { key, keys: { privateKey: await importSigningKey(key), publicKey: verifying } };
}

function importSigningKey(pem: string): Promise<webcrypto.CryptoKey> {
  const pkcs8 = createPrivateKey(pem).export({ format: 'der', type: 'pkcs8' });
  return webcrypto.subtle.importKey('pkcs8', pkcs8, ecdsa, false, ['sign']);
}
