import type { SecureContextOptions } from 'node:tls';

import type { TlsIdentity } from '../identity/tls-identity.ts';

/** What a TLS end between sites is made of: TLS 1.3 only, our newest certificate, our pinned neighbours. */
export function secureContextOf(identity: TlsIdentity): SecureContextOptions {
  const { cert, key, ca, crl } = identity.material();
  return {
    cert,
    key,
    ca: [...ca],
    // As soon as there is one list, OpenSSL wants one of every authority.
    ...(crl.length === 0 ? {} : { crl: [...crl] }),
    minVersion: 'TLSv1.3',
  };
}
