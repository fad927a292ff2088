import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  createAuthority,
  createRevocationList,
  issueLeaf,
} from '../../../common/identity/certificate-maker.ts';
import { namesOf, type KeyedCertificate } from '../../../common/identity/certificates.ts';
import { DerError } from '../../../common/identity/der.ts';
import { readRevocationList } from '../../../common/identity/revocation-list.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const validity = { notBeforeMs: 1_700_000_000_000, notAfterMs: 2_600_000_000_000 };
const list = { number: 7, thisUpdateMs: 1_700_000_000_000, nextUpdateMs: 2_600_000_000_000 };
const serial = fc
  .uint8Array({ minLength: 1, maxLength: 16 })
  .map((bytes) => Buffer.from(bytes).toString('hex'))
  .filter((hex) => !/^0*$/.test(hex));

let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => {
  directory[Symbol.dispose]();
});

/** The words of one command line. */
function openssl(commandLine: string): void {
  execFileSync('openssl', commandLine.split(' '), { cwd: directory.path, stdio: 'pipe' });
}

function read(name: string): string {
  return readFileSync(join(directory.path, name), 'utf8');
}

function authority(): Promise<KeyedCertificate> {
  return createAuthority('site-a', validity);
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----[^-]*-----|\s/g, ''), 'base64');
}

function pemOf(der: Uint8Array): string {
  const base64 = Buffer.from(der).toString('base64');
  return `-----BEGIN X509 CRL-----\n${base64}\n-----END X509 CRL-----\n`;
}

describe('readRevocationList', () => {
  test('reads what a list says: number, times beyond 2050 too, any serials', async () => {
    const pair = await authority();
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(serial, { maxLength: 20, selector: (hex) => BigInt(`0x${hex}`) }),
        fc.integer({ min: 0, max: 2 ** 40 }),
        async (serials, number) => {
          const revocations = serials.map((each) => ({ serial: each, revokedAtMs: 0 }));
          const pem = await createRevocationList(pair, { ...list, number, revocations });
          expect(readRevocationList(pem, pair.cert)).toEqual({
            ...list,
            number,
            serials: new Set(serials.map((each) => each.replace(/^0+(?=.)/, ''))),
          });
        },
      ),
      { numRuns: 30 },
    );
  });

  test('a list that its authority did not sign, altered anywhere or cut off is none; it never throws', async () => {
    const [pair, other] = [await authority(), await authority()];
    const revocations = [{ serial: '0badcafe', revokedAtMs: 0 }];
    const pem = await createRevocationList(pair, { ...list, revocations });
    expect(readRevocationList(pem, pair.cert)).toBeDefined();
    expect(readRevocationList(pem, other.cert)).toBeUndefined();
    expect(readRevocationList(pem, 'nonsense')).toBeUndefined();
    const der = derOf(pem);
    for (let index = 0; index < der.length; index += 1) {
      const changed = Uint8Array.from(der);
      changed[index] = (changed[index] ?? 0) ^ 0x41;
      expect(readRevocationList(pemOf(changed), pair.cert)).toBeUndefined();
      expect(readRevocationList(pemOf(der.subarray(0, index)), pair.cert)).toBeUndefined();
    }
    expect(readRevocationList(pemOf(Buffer.concat([der, der])), pair.cert)).toBeUndefined();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), fc.string(), (bytes, text) => {
        expect(readRevocationList(pemOf(bytes), pair.cert)).toBeUndefined();
        expect(readRevocationList(text, pair.cert)).toBeUndefined();
      }),
    );
  });

  test('reads lists of openssl', async () => {
    const pair = await authority();
    writeFileSync(join(directory.path, 'ca.crt'), pair.cert);
    writeFileSync(join(directory.path, 'ca.key'), pair.key);
    writeFileSync(join(directory.path, 'number'), '2A\n');
    writeFileSync(
      join(directory.path, 'index'),
      ['R\t400101000000Z\t230101000000Z\t00FF01\tunknown\t/CN=x', ''].join('\n'),
    );
    writeFileSync(
      join(directory.path, 'ca.cnf'),
      '[ca]\ndefault_ca=a\n[a]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=1\n',
    );
    openssl('ca -gencrl -config ca.cnf -cert ca.crt -keyfile ca.key -out crl.pem');
    const found = readRevocationList(read('crl.pem'), pair.cert);
    expect(found).toMatchObject({ number: 42, serials: new Set(['ff01']) });
    expect((found?.nextUpdateMs ?? 0) - (found?.thisUpdateMs ?? 0)).toBe(86_400_000);
  });
});

describe('namesOf', () => {
  test('says of certificates of openssl what Node says: names, usages, authority', () => {
    const san = 'URI:urn:isobar:site:a,DNS:b.example,IP:::1,URI:urn:x:y,email:a@b.c';
    const usages = 'serverAuth,clientAuth,1.3.6.1.4.1.32473.1.1';
    for (const isAuthority of [true, false]) {
      openssl(
        `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out crt -days 1 -subj /CN=a -addext subjectAltName=${san} -addext extendedKeyUsage=${usages} -addext basicConstraints=critical,CA:${isAuthority ? 'TRUE' : 'FALSE'}`,
      );
      const certificate = new X509Certificate(read('crt'));
      const names = namesOf(certificate.raw);
      expect(names.uris).toEqual(['urn:isobar:site:a', 'urn:x:y']);
      expect(names.usages).toEqual(certificate.keyUsage);
      expect(names.isAuthority).toBe(isAuthority);
    }
  });

  test('says nothing of a certificate without extensions, and throws for what is no certificate', async () => {
    openssl('ecparam -name prime256v1 -genkey -noout -out key');
    openssl('req -new -key key -subj /CN=a -out csr');
    openssl('x509 -req -in csr -signkey key -out crt');
    const names = namesOf(new X509Certificate(read('crt')).raw);
    expect(names).toEqual({ uris: [], usages: [], isAuthority: false });
    const { cert } = await issueLeaf(await authority(), { siteName: 'a', hosts: [] }, validity);
    const der = derOf(cert);
    for (let length = 0; length < der.length; length += 1) {
      expect(() => namesOf(der.subarray(0, length))).toThrow(DerError);
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => namesOf(bytes)).toThrow(DerError);
      }),
    );
  });
});
