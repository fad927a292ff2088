// oxlint-disable-next-line import/no-unassigned-import -- the ASN.1 decorators need it, and before them
import 'reflect-metadata';
import {
  createPrivateKey,
  generateKeyPairSync,
  randomBytes,
  webcrypto,
  X509Certificate as NodeCertificate,
} from 'node:crypto';
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
  X509CrlGenerator,
  X509CrlReason,
  type JsonGeneralName,
} from '@peculiar/x509';

import {
  authoritySubject,
  crlNumberId,
  signingUsage,
  siteUri,
  type KeyedCertificate,
  type Revocation,
  type Validity,
} from './certificates.ts';

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const subjectKeyIdentifierId = '2.5.29.14';
const nameConstraintsId = '2.5.29.30';
const serialBytes = 16;

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

/**
 * What is wrong with an authority that a neighbour hands over, for the site that it calls itself; undefined when nothing
 * is: self-signed P-256 with the shared subject, for this site alone, with no authority below it.
 */
export async function authorityProblem(pem: string, siteName: string): Promise<string | undefined> {
  try {
    // Read by Node first: what is compared, pinned and trusted. The library takes anything else for text, in which it looks for PEM.
    const { raw } = new NodeCertificate(pem);
    return await unfitness(new X509Certificate(Uint8Array.from(raw)), siteName);
  } catch {
    // Extensions, names and keys are parsed when they are asked for.
    return 'it is no certificate that can be read';
  }
}

async function unfitness(
  certificate: X509Certificate,
  siteName: string,
): Promise<string | undefined> {
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
