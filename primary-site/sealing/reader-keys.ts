import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { parseRecipientKey, type RecipientKey } from '../../common/sealing/recipients.ts';
import { SealingError } from '../../common/sealing/sealing-error.ts';

/** Private keys of one reader: the one in use, and those before it. */
const keysMax = 16;
const certificatesMax = 64;
const fileBytesMax = 65_536;

/**
 * The private keys (`*.key`, PEM, for this user only) and certificates (`*.crt`) in `directory`.
 * @throws SealingError `key-unusable` for a file that can't be used, and for keys that others can read.
 */
export function readReaderKeys(directory: string): readonly RecipientKey[] {
  let names: readonly string[];
  try {
    names = readdirSync(directory).toSorted();
  } catch (cause) {
    throw unusable(`${directory} can't be read: make it, with a *.key file in it`, cause);
  }
  const keyNames = names.filter((name) => name.endsWith('.key'));
  const certificateNames = names.filter((name) => name.endsWith('.crt'));
  if (keyNames.length > keysMax || certificateNames.length > certificatesMax) {
    throw unusable(`${directory}: at most ${keysMax} keys and ${certificatesMax} certificates`);
  }
  const certificates = certificateNames.map((name) => readPem(join(directory, name)));
  return keyNames.map((name) => {
    const path = join(directory, name);
    if ((statSync(path).mode & 0o077) !== 0) {
      throw unusable(`${path} is open to other users: chmod 600 ${path}`);
    }
    const pem = readPem(path);
    try {
      return parseRecipientKey(pem, certificates);
    } catch (cause) {
      throw unusable(`${path}: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
    }
  });
}

function readPem(path: string): string {
  const content = readFileSync(path);
  if (content.length > fileBytesMax) throw unusable(`${path} is larger than ${fileBytesMax} bytes`);
  return content.toString('utf8');
}

function unusable(message: string, cause?: unknown): SealingError {
  return new SealingError('key-unusable', message, { needsSetup: true, cause });
}
