import { randomBytes } from 'node:crypto';

import { assert, asyncProperty, integer, nat, uniqueArray } from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  createAuthority,
  createRevocationList,
} from '../../../common/identity/certificate-maker.ts';
import {
  readRevocationList,
  revocationListCharsMax,
} from '../../../common/identity/revocation-list.ts';

const nowMs = Date.UTC(2026, 0, 1);
const validity = { notBeforeMs: nowMs, notAfterMs: nowMs + 86_400_000 };
const authority = await createAuthority('a', validity);
const other = await createAuthority('a', validity);

function listOf(serials: readonly string[], number = 7, thisUpdateMs = nowMs): Promise<string> {
  return createRevocationList(authority, {
    number,
    thisUpdateMs,
    nextUpdateMs: thisUpdateMs + 1_000,
    revocations: serials.map((serial) => ({ serial, revokedAtMs: nowMs })),
  });
}

const bytesOf = (pem: string): Buffer =>
  Buffer.from(pem.replaceAll(/-----[A-Z0-9 ]+-----/g, ''), 'base64');
const pemOf = (der: Buffer): string =>
  `-----BEGIN X509 CRL-----\n${der.toString('base64')}\n-----END X509 CRL-----\n`;

describe('readRevocationList', () => {
  test('says what the list was made from, whatever number, times and serials', async () => {
    const serial = integer({ min: 1 }).map((value) => value.toString(16));
    const lastMs = Date.UTC(2090, 0, 1);
    await assert(
      asyncProperty(
        uniqueArray(serial, { maxLength: 20 }),
        nat(),
        integer({ min: 0, max: lastMs / 1_000 }),
        async (serials, number, thisUpdateS) => {
          const pem = await listOf(serials, number, thisUpdateS * 1_000);
          expect(readRevocationList(pem, authority.cert)).toEqual({
            number,
            thisUpdateMs: thisUpdateS * 1_000,
            nextUpdateMs: (thisUpdateS + 1) * 1_000,
            serials: new Set(serials),
          });
          expect(readRevocationList(pem, other.cert)).toBeUndefined();
        },
      ),
      { numRuns: 20 },
    );
  });

  test('reads a list of as many entries as its bound has room for, and none beyond', async () => {
    const serials = Array.from({ length: 900 }, () => `4${randomBytes(15).toString('hex')}1`);
    const pem = await listOf(serials);
    expect(pem.length).toBeLessThan(revocationListCharsMax);
    expect(readRevocationList(pem, authority.cert)?.serials).toEqual(new Set(serials));
    const [begin = '', rest = ''] = pem.split(/(?<=BEGIN X509 CRL-----)/);
    const padding = '\n'.repeat(revocationListCharsMax - pem.length);
    expect(readRevocationList(`${begin}${padding}${rest}`, authority.cert)?.number).toBe(7);
    expect(readRevocationList(`${begin}${padding}\n${rest}`, authority.cert)).toBeUndefined();
  });

  test('reads nothing of what was changed, cut off or added to, anywhere', async () => {
    const der = bytesOf(await listOf(['1a', '2b']));
    expect(readRevocationList(pemOf(der), authority.cert)?.serials).toEqual(new Set(['1a', '2b']));
    for (const index of der.keys()) {
      const changed = Buffer.from(der);
      changed[index] = (changed[index] ?? 0) ^ 0x01;
      for (const bytes of [changed, der.subarray(0, index)]) {
        expect(readRevocationList(pemOf(bytes), authority.cert)).toBeUndefined();
      }
    }
    expect(readRevocationList(pemOf(Buffer.concat([der, der])), authority.cert)).toBeUndefined();
  });
});
