import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A key pair on disk with a self-signed certificate, made by the real openssl. */
export interface OpensslIdentity {
  readonly keyPath: string;
  readonly certificatePath: string;
  readonly keyPem: string;
  readonly certificatePem: string;
}

const keyKinds = {
  'rsa-2048': ['-newkey', 'rsa:2048'],
  'P-256': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'P-384': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'P-521': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521'],
} as const;
export type OpensslKeyKind = keyof typeof keyKinds;

/** Runs openssl and returns what it wrote to its standard output; throws with its error output when it fails. */
export function openssl(parameters: readonly string[], input?: Uint8Array): Buffer {
  return execFileSync('openssl', parameters, {
    ...(input === undefined ? {} : { input }),
    stdio: ['pipe', 'pipe', 'pipe'],
    maxBuffer: 64 * 1_024 * 1_024,
  });
}

export function opensslIdentity(
  directory: string,
  name: string,
  kind: OpensslKeyKind,
): OpensslIdentity {
  const keyPath = join(directory, `${name}.key`);
  const certificatePath = join(directory, `${name}.crt`);
  const subject = `/O=Isobar tests/CN=${name}`;
  const files = ['-keyout', keyPath, '-out', certificatePath];
  const options = ['-nodes', '-days', '30', '-subj', subject];
  openssl(['req', '-x509', ...keyKinds[kind], ...options, ...files]);
  return {
    keyPath,
    certificatePath,
    keyPem: readFileSync(keyPath, 'utf8'),
    certificatePem: readFileSync(certificatePath, 'utf8'),
  };
}

/** `openssl cms -encrypt` for one or several certificates, in DER. */
export function opensslEncrypt(
  content: Uint8Array,
  recipients: readonly OpensslIdentity[],
  options: readonly string[] = ['-aes-256-gcm'],
  recipientOptions: readonly string[] = [],
): Uint8Array {
  const named = recipients.flatMap(({ certificatePath }) => [
    '-recip',
    certificatePath,
    ...recipientOptions,
  ]);
  return openssl(['cms', '-encrypt', '-binary', '-outform', 'DER', ...options, ...named], content);
}

/** `openssl cms -decrypt` of a DER envelope; throws when openssl refuses it. */
export function opensslDecrypt(
  envelope: Uint8Array,
  identity: OpensslIdentity,
  directory: string,
): Uint8Array {
  const path = join(directory, 'envelope.der');
  writeFileSync(path, envelope);
  const key = ['-inkey', identity.keyPath, '-recip', identity.certificatePath];
  return openssl(['cms', '-decrypt', '-binary', '-inform', 'DER', '-in', path, ...key]);
}
