// oxlint-disable-next-line import/no-unassigned-import -- @peculiar/x509 wants it loaded before itself
import 'reflect-metadata';
import {
  generateKeyPairSync,
  KeyObject,
  webcrypto,
  X509Certificate as NodeCertificate,
} from 'node:crypto';

import {
  BasicConstraintsExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
  cryptoProvider,
  type X509Certificate,
} from '@peculiar/x509';

import type { TlsIdentity, TlsMaterial } from '../../common/identity/tls-identity.ts';
import type { Cancel } from '../../common/runtime/clock.ts';
import type { SiteKeys } from '../../common/site-control/site-keys.ts';

cryptoProvider.set(webcrypto);
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;

/** A site's authority, its leaf certificate and the key that it signs requests with. */
export class TestSite {
  readonly name: string;
  readonly authority: X509Certificate;
  readonly cert: string;
  readonly key: string;
  readonly signing: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
  readonly #authorityKeys: webcrypto.CryptoKeyPair;
  #crl = '';

  private constructor(
    name: string,
    parts: {
      readonly authority: X509Certificate;
      readonly authorityKeys: webcrypto.CryptoKeyPair;
      readonly cert: string;
      readonly key: string;
      readonly signing: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
    },
  ) {
    this.name = name;
    this.authority = parts.authority;
    this.#authorityKeys = parts.authorityKeys;
    this.cert = parts.cert;
    this.key = parts.key;
    this.signing = parts.signing;
  }

  static async make(name: string, kind: 'ed25519' | 'p256' = 'ed25519'): Promise<TestSite> {
    const authorityKeys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const authority = await X509CertificateGenerator.createSelfSigned({
      serialNumber: '01',
      name: `CN=${name} authority`,
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + 30 * dayMs),
      keys: authorityKeys,
      signingAlgorithm: algorithm,
      extensions: [new BasicConstraintsExtension(true, 0, true)],
    });
    const leafKeys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const leaf = await X509CertificateGenerator.create({
      serialNumber: '02',
      issuer: authority.subject,
      subject: `CN=${name}`,
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + dayMs),
      publicKey: leafKeys.publicKey,
      signingKey: authorityKeys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new SubjectAlternativeNameExtension([
          { type: 'url', value: `urn:isobar:site:${name}` },
          { type: 'ip', value: '127.0.0.1' },
        ]),
      ],
    });
    const signing =
      kind === 'ed25519'
        ? generateKeyPairSync('ed25519')
        : generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    const site = new TestSite(name, {
      authority,
      authorityKeys,
      cert: leaf.toString('pem'),
      key: KeyObject.from(leafKeys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
      signing,
    });
    await site.revoke([]);
    return site;
  }

  /** PEM of the newest revocation list. */
  get crl(): string {
    return this.#crl;
  }

  /** Issues a list with these certificates' serial numbers. */
  async revoke(serialNumbers: readonly string[]): Promise<void> {
    const crl = await X509CrlGenerator.create({
      issuer: this.authority.subject,
      thisUpdate: new Date(Date.now() - 1_000),
      nextUpdate: new Date(Date.now() + dayMs),
      entries: serialNumbers.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
      signingAlgorithm: algorithm,
      signingKey: this.#authorityKeys.privateKey,
    });
    this.#crl = crl
      .toString('pem')
      .replaceAll('BEGIN CRL', 'BEGIN X509 CRL')
      .replaceAll('END CRL', 'END X509 CRL');
  }
}

/** What one site knows: itself, and its neighbours by relation. */
export class TestIdentity implements TlsIdentity, SiteKeys {
  readonly #own: TestSite;
  readonly #neighbours: Map<string, TestSite>;
  readonly #refused = new Set<string>();
  readonly #listeners = new Set<() => void>();

  constructor(own: TestSite, neighbours: Readonly<Record<string, TestSite>>) {
    this.#own = own;
    this.#neighbours = new Map(Object.entries(neighbours));
  }

  material(): TlsMaterial {
    const sites = [...this.#neighbours.values()];
    return {
      cert: this.#own.cert,
      key: this.#own.key,
      ca: sites.map(({ authority }) => authority.toString('pem')),
      crl: sites.map(({ crl }) => crl),
    };
  }

  relationOf(peerCertificateDer: Uint8Array): string | undefined {
    const peer = new NodeCertificate(peerCertificateDer);
    for (const [relation, { authority }] of this.#neighbours) {
      if (this.#refused.has(relation)) continue;
      const issuer = new NodeCertificate(authority.toString('pem'));
      if (peer.checkIssued(issuer) && peer.verify(issuer.publicKey)) return relation;
    }
    return undefined;
  }

  onChange(listener: () => void): Cancel {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  signingKey(): KeyObject {
    return this.#own.signing.privateKey;
  }

  /** Neighbours have it already. */
  signingCertificate(): undefined {
    return undefined;
  }

  verificationKeyOf(relation: string): KeyObject | undefined {
    return this.#neighbours.get(relation)?.signing.publicKey;
  }

  /** From now on the relation's certificates are nobody's; listeners are told. */
  refuse(relation: string): void {
    this.#refused.add(relation);
    this.changed();
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
