import { verify, X509Certificate } from 'node:crypto';

import { crlNumberId } from './certificates.ts';
import {
  DerError,
  derBits,
  derElement,
  derElements,
  derTag,
  derTimeMs,
  derUnsigned,
  expectTag,
} from './der.ts';
import { algorithmOf, extensionsOf, sequenceOf } from './x509-der.ts';

/** What a verified list says. */
export interface RevocationList {
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** Serials in hexadecimal, lower case, without leading zeros. */
  readonly serials: ReadonlySet<string>;
}

/** Characters of one list in PEM: some 900 entries of ours. A longer one is no list. */
export const revocationListCharsMax = 65_536;

/** RFC 5758, 3.2; the only one that our authorities sign with. */
const ecdsaWithSha256Id = '1.2.840.10045.4.3.2';
const listExtensionsTag = 0xa0;
/** RFC 5280, 5.2.3: at most 20 octets. */
const numberBytesMax = 20;

/**
 * The list in `pem` (RFC 5280, 5.1), when the authority of `authorityCertificate` signed it with ECDSA and SHA-256; undefined for any
 * other text. Nothing of it is read before its signature is verified.
 */
export function readRevocationList(
  pem: string,
  authorityCertificate: string,
): RevocationList | undefined {
  if (pem.length > revocationListCharsMax) return undefined;
  try {
    const { publicKey } = new X509Certificate(authorityCertificate);
    return readList(derOf(pem), (signed, signature) =>
      verify('sha256', signed, publicKey, signature),
    );
  } catch {
    // Bytes from outside that are no list; the caller counts and reports it.
    return undefined;
  }
}

const listPem = /^-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----$/;

function derOf(pem: string): Uint8Array {
  const [, base64] = listPem.exec(pem.trim()) ?? [];
  if (base64 === undefined) throw new DerError('no PEM of a revocation list');
  return Buffer.from(base64, 'base64');
}

/** @throws DerError */
function readList(
  der: Uint8Array,
  isSigned: (signed: Uint8Array, signature: Uint8Array) => boolean,
): RevocationList | undefined {
  const [signed, algorithm, signature] = derElements(derElement(der, derTag.sequence).content);
  const list = expectTag(signed, derTag.sequence);
  if (!isSigned(list.bytes, derBits(signature))) return undefined;
  // Of version 2, as what has a number must be.
  const [, inner, issuer, thisUpdate, nextUpdate, ...rest] = derElements(list.content);
  if (algorithmOf(algorithm) !== ecdsaWithSha256Id || algorithmOf(inner) !== ecdsaWithSha256Id) {
    return undefined;
  }
  expectTag(issuer, derTag.sequence);
  const extensions = extensionsOf(rest.at(-1), listExtensionsTag);
  const [entries] = rest.length > 1 ? rest : [];
  // One that is critical and not known could give the list another meaning.
  if ([...extensions.values()].some(({ isCritical }) => isCritical)) return undefined;
  const number = extensions.get(crlNumberId)?.value;
  if (number === undefined || number.length > 2 + numberBytesMax) return undefined;
  return {
    number: Number(`0x${derUnsigned(derElement(number, derTag.integer))}`),
    thisUpdateMs: derTimeMs(thisUpdate),
    nextUpdateMs: derTimeMs(nextUpdate),
    serials: new Set(
      entries === undefined
        ? []
        : sequenceOf(entries).map((entry) => derUnsigned(sequenceOf(entry)[0])),
    ),
  };
}

/** Serials compare as numbers: hexadecimal in lower case without leading zeros. */
export function normalSerial(serial: string): string {
  return serial.toLowerCase().replace(/^0+(?=.)/, '');
}
