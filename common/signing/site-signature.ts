import { createPrivateKey, type KeyObject } from 'node:crypto';

import type { SigningIdentity } from '../identity/tls-identity.ts';

/** Characters of any signature that a neighbour makes, as base64url. */
export const signatureCharsMax = 1_024;

/** What `sign` and `verify` hash with: Ed25519 and its like hash by themselves. */
export function digestFor(key: KeyObject): string | null {
  return key.asymmetricKeyType === 'ec' || key.asymmetricKeyType === 'rsa' ? 'sha256' : null;
}

export interface SiteSigningKey {
  /** DER, base64. */
  readonly certificate: string;
  readonly key: KeyObject;
}

/** A site's newest signing key, parsed once: the same object as long as the key is the same. */
export class NewestSigningKey {
  readonly #identity: SigningIdentity;
  #known: { readonly certificatePem: string; readonly key: SiteSigningKey } | undefined;

  constructor(identity: SigningIdentity) {
    this.#identity = identity;
  }

  /** Undefined while the site has none: renewal makes one. */
  get(): SiteSigningKey | undefined {
    const pair = this.#identity.signing();
    if (pair === undefined) return undefined;
    if (this.#known?.certificatePem !== pair.cert) {
      const certificate = pair.cert.replaceAll(/-----[A-Z ]+-----|\s/g, '');
      const key = { certificate, key: createPrivateKey(pair.key) };
      this.#known = { certificatePem: pair.cert, key };
    }
    return this.#known.key;
  }
}
