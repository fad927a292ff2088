import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { ChannelError } from './channel-error.ts';

/** Options of `tls.createServer` and `tls.connect` for a channel on which both ends show a certificate. */
export interface ChannelTlsOptions {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly minVersion: 'TLSv1.3';
  readonly requestCert: true;
  readonly rejectUnauthorized: true;
}

/**
 * Reads `ca.pem` (the authority that the other end must be signed by), `cert.pem` and `key.pem` of `directory`.
 * Read for each connection, by either end, so renewed files are taken without a restart; a connection that is there
 * goes on with those it was made with.
 * @throws ChannelError `tls-files-unreadable`
 */
export function readChannelTls(directory: string | undefined): ChannelTlsOptions {
  if (directory === undefined) {
    const message =
      'a tcp: channel needs mutual TLS: set tlsDirectory to a directory with ca.pem, cert.pem, key.pem';
    throw new ChannelError('tls-files-unreadable', message);
  }
  return {
    ca: readPem(directory, 'ca.pem'),
    cert: readPem(directory, 'cert.pem'),
    key: readPem(directory, 'key.pem'),
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: true,
  };
}

function readPem(directory: string, name: string): Buffer {
  const path = join(directory, name);
  try {
    return readFileSync(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `cannot read ${path} (${reason}): put ca.pem, cert.pem and key.pem there, readable by this user`;
    throw new ChannelError('tls-files-unreadable', message, { cause });
  }
}
