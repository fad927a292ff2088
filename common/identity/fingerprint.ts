import { X509Certificate } from 'node:crypto';

const digitsPerGroup = 4;

/** SHA-256 of the DER certificate, in hexadecimal, lower case: what identifies an authority to machines. */
export function fingerprintOf(certificatePem: string): string {
  return new X509Certificate(certificatePem).fingerprint256.replaceAll(':', '').toLowerCase();
}

/** For two people to read to each other: `SHA256 3f2a 99c1 ...`, sixteen groups of four digits. */
export function formatFingerprint(fingerprint: string): string {
  const groups = fingerprint.match(new RegExp(`.{1,${digitsPerGroup}}`, 'g')) ?? [];
  return ['SHA256', ...groups].join(' ');
}

/** The fingerprint in `text`, with or without `SHA256`, spaces and colons, in any case; undefined when it is none. */
export function parseFingerprint(text: string): string | undefined {
  const digits = text
    .replace(/^\s*sha-?256\b[\s:=]*/i, '')
    .replace(/[\s:-]/g, '')
    .toLowerCase();
  return /^[0-9a-f]{64}$/.test(digits) ? digits : undefined;
}
