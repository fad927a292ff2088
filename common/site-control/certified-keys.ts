import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';

import type { KeyedCertificate } from '../identity/certificates.ts';
import { IdentityError } from '../identity/identity-error.ts';
import type { TlsIdentity } from '../identity/tls-identity.ts';
import { keyIdOf, type KeyUse, type SiteKeys } from './site-keys.ts';

/** What a running site's identity gives for signatures. */
export interface SigningIdentity extends TlsIdentity {
  /** The newest certificate and key for signed requests; undefined when there is none. */
  signing(): KeyedCertificate | undefined;
}

/**
 * Keys of a site directory. A neighbour's key is known by the certificate that it sends along: issued for signatures by
 * the authority that is pinned for its relation, and not revoked. So keys are renewed without telling anybody.
 */
export class CertifiedSiteKeys implements SiteKeys {
  readonly #identity: SigningIdentity;

  constructor(identity: SigningIdentity) {
    this.#identity = identity;
  }

  /** @throws IdentityError `site-unusable` */
  signingKey(): KeyObject {
    return createPrivateKey(this.#pair().key);
  }

  /** @throws IdentityError `site-unusable` */
  signingCertificate(): string {
    return new X509Certificate(this.#pair().cert).raw.toString('base64');
  }

  verificationKeyOf(
    relation: string,
    keyId: string,
    certificate: string | undefined,
    use: KeyUse,
  ): KeyObject | undefined {
    if (certificate === undefined) return undefined;
    const der = Buffer.from(certificate, 'base64');
    if (this.#identity.relationOf(der, use) !== relation) return undefined;
    const { publicKey } = new X509Certificate(der);
    return keyIdOf(publicKey) === keyId ? publicKey : undefined;
  }

  #pair(): KeyedCertificate {
    const pair = this.#identity.signing();
    if (pair !== undefined) return pair;
    throw new IdentityError(
      'site-unusable',
      'the signing certificate of this site or its key is missing: isobar site rotate leaf makes what is missing',
    );
  }
}
