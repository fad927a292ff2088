import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { makeDirectory } from '../../common/runtime/make-directory.ts';

/**
 * Makes the directory of a primary site's private keys with one key in it, as `openssl genpkey` would; returns the public
 * key, PEM, for the descriptors of its VMs.
 */
export function makeReaderKey(keysDirectory: string): string {
  makeDirectory(keysDirectory, 0o700);
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  writeFileSync(join(keysDirectory, 'reader.key'), keyPem, { mode: 0o600 });
  return publicKey.export({ type: 'spki', format: 'pem' }).toString();
}
