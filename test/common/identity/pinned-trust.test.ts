// oxlint-disable-next-line import/no-unassigned-import -- @peculiar/x509 wants it loaded before itself
import 'reflect-metadata';
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';

import {
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { expect, test } from 'vitest';

import { createAuthority } from '../../../common/identity/certificate-maker.ts';
import { authoritySubject, siteUri } from '../../../common/identity/certificates.ts';
import { fileTlsIdentityDefaults } from '../../../common/identity/file-tls-identity.ts';
import { judgePeer, type Pin } from '../../../common/identity/pinned-trust.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const nowMs = Date.UTC(2026, 0, 1);
const validity = { notBeforeMs: nowMs - 60_000, notAfterMs: nowMs + 86_400_000 };

test('a certificate counts for the site that its subject and its URI both name', async () => {
  const authority = await createAuthority('site-b', validity);
  const pkcs8 = createPrivateKey(authority.key).export({ format: 'der', type: 'pkcs8' });
  const signingKey = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']);
  const { publicKey } = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const pin: Pin = {
    relation: 'a-b',
    siteName: 'site-b',
    authority: new X509Certificate(authority.cert),
    revocations: undefined,
  };
  const judge = async (subject: string, site: string) => {
    const leaf = await X509CertificateGenerator.create(
      {
        subject,
        issuer: authoritySubject,
        notBefore: new Date(validity.notBeforeMs),
        notAfter: new Date(validity.notAfterMs),
        signingAlgorithm: algorithm,
        publicKey,
        signingKey,
        extensions: [
          new SubjectAlternativeNameExtension([{ type: 'url', value: siteUri(site) }]),
          new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        ],
      },
      webcrypto,
    );
    const der = new Uint8Array(leaf.rawData);
    return judgePeer([pin], der, 'tls', nowMs, fileTlsIdentityDefaults);
  };
  const wrongName = { ok: false, reason: 'wrong-name', relation: 'a-b' };
  expect(await judge('CN=site-b', 'site-b')).toEqual({ ok: true, relation: 'a-b' });
  expect(await judge('CN=site-c', 'site-b')).toEqual(wrongName);
  expect(await judge('CN=site-b, O=site-c', 'site-b')).toEqual(wrongName);
  expect(await judge('CN=site-b', 'site-c')).toEqual(wrongName);
});
