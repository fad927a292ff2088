import { X509Certificate } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import {
  FileTlsIdentity,
  fileTlsIdentityDefaults,
} from '../../../common/identity/file-tls-identity.ts';
import { acceptRevocationLists, withdrawTrust } from '../../../common/identity/invitation.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { CertifiedSiteKeys } from '../../../common/site-control/certified-keys.ts';
import { keyIdOf } from '../../../common/site-control/site-keys.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const clock = new SystemClock();

async function identityOf(directory: string): Promise<FileTlsIdentity> {
  const identity = new FileTlsIdentity(
    { clock, log: silentLog },
    { ...fileTlsIdentityDefaults, directory },
  );
  await identity.start();
  return identity;
}

/** Site a, with its neighbours b and c. */
async function neighbours(parent: string) {
  const [a, b, c] = [
    await makeSite(parent, 'a'),
    await makeSite(parent, 'b'),
    await makeSite(parent, 'c'),
  ];
  await makeNeighbours('a-b', a, b);
  await makeNeighbours('a-c', a, c);
  const identities = {
    a: await identityOf(a),
    b: await identityOf(b),
    c: await identityOf(c),
  };
  return {
    a,
    identities,
    verifier: new CertifiedSiteKeys(identities.a),
    signer: new CertifiedSiteKeys(identities.b),
    [Symbol.asyncDispose]: async () => {
      for (const identity of Object.values(identities)) await identity.stop();
    },
  };
}

describe('CertifiedSiteKeys', () => {
  test('know a neighbour’s key by the certificate that it sends along', async () => {
    using directory = temporaryDirectory();
    await using sites = await neighbours(directory.path);
    const { signer, verifier } = sites;
    const keyId = keyIdOf(signer.signingKey());
    const certificate = signer.signingCertificate();
    const key = verifier.verificationKeyOf('a-b', keyId, certificate, 'signing');
    expect(key === undefined ? '' : keyIdOf(key)).toBe(keyId);
    // Another relation, another key, none, and what is no certificate.
    expect(verifier.verificationKeyOf('a-c', keyId, certificate, 'signing')).toBeUndefined();
    const otherId = keyIdOf(new CertifiedSiteKeys(sites.identities.c).signingKey());
    expect(verifier.verificationKeyOf('a-b', otherId, certificate, 'signing')).toBeUndefined();
    expect(verifier.verificationKeyOf('a-b', keyId, undefined, 'signing')).toBeUndefined();
    expect(verifier.verificationKeyOf('a-b', keyId, 'AAAA', 'signing')).toBeUndefined();
  });

  test('a TLS certificate signs no request, and neither does who is trusted no longer', async () => {
    using directory = temporaryDirectory();
    await using sites = await neighbours(directory.path);
    const { signer, verifier } = sites;
    const { cert } = sites.identities.b.material();
    const leaf = cert.replaceAll(/-----[A-Z ]+-----|\s/g, '');
    const leafKeyId = keyIdOf(new X509Certificate(cert).publicKey);
    expect(verifier.verificationKeyOf('a-b', leafKeyId, leaf, 'signing')).toBeUndefined();
    await withdrawTrust(clock, sites.a, 'a-b');
    await sites.identities.a.reload();
    const keyId = keyIdOf(signer.signingKey());
    const certificate = signer.signingCertificate();
    expect(verifier.verificationKeyOf('a-b', keyId, certificate, 'signing')).toBeUndefined();
  });

  test('more lists than a site has authorities are not even looked at', async () => {
    using directory = temporaryDirectory();
    await using sites = await neighbours(directory.path);
    const list = '-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n';
    await expect(
      acceptRevocationLists(clock, sites.a, 'a-b', list.repeat(4)),
    ).rejects.toMatchObject({ code: 'revocations-refused' });
  });
});
