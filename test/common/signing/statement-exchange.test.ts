import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { FileTlsIdentity } from '../../../common/identity/file-tls-identity.ts';
import { SiteAuthority } from '../../../common/identity/site-authority.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import { SystemClock, type Clock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import type { Quota } from '../../../common/runtime/token-bucket.ts';
import { newEpochKey } from '../../../common/signing/epoch-key.ts';
import type { KeyClaim } from '../../../common/signing/key-statement.ts';
import { StatementSigner } from '../../../common/signing/statement-signer.ts';
import { StatementVerifier, type ClaimStore } from '../../../common/signing/statement-verifier.ts';
import {
  controlMessageBytesMax,
  controlMessageVersion,
  decodeDownstream,
  encodeControl,
  keyStatementsMax,
} from '../../../common/wire/control-message.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { Federation } from '../../support/federation.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { dataStream, sampleEpoch } from '../../support/sample-frames.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';

const claim: KeyClaim = {
  stream: dataStream('vm1'),
  epoch: sampleEpoch,
  publicKey: newEpochKey().publicKey,
  predecessor: null,
};

/** Keeps the first key of each epoch. */
class MemoryClaims implements ClaimStore {
  readonly keys = new Map<string, string>();
  isFull = false;

  isKnown: ClaimStore['isKnown'] = ({ epoch, publicKey }) =>
    this.keys.get(epoch.nonce) === publicKey;

  accept: ClaimStore['accept'] = ({ epoch, publicKey }) => {
    if (this.isFull) throw new Error('database or disk is full');
    if (this.keys.has(epoch.nonce)) return false;
    this.keys.set(epoch.nonce, Buffer.from(publicKey).toString('base64url'));
    return true;
  };
}

let federation: Federation;
let directories: { readonly a: string; readonly b: string; readonly c: string };
let sites: {
  readonly a: FileTlsIdentity;
  readonly b: FileTlsIdentity;
  readonly c: FileTlsIdentity;
};
let store: MemoryClaims;
/** What site b makes of what its neighbour a states; c is another neighbour of b. */
let verifier: StatementVerifier;

beforeEach(async () => {
  federation = new Federation();
  const { parent } = federation;
  directories = {
    a: await makeSite(parent, 'site-a'),
    b: await makeSite(parent, 'site-b'),
    c: await makeSite(parent, 'site-c'),
  };
  await makeNeighbours('ab', directories.a, directories.b);
  await makeNeighbours('cb', directories.c, directories.b);
  sites = {
    a: await federation.identity(directories.a),
    b: await federation.identity(directories.b),
    c: await federation.identity(directories.c),
  };
  store = new MemoryClaims();
  verifier = newVerifier();
});

afterEach(async () => {
  await federation.close();
});

function newVerifier(clock: Clock = new SystemClock(), quota?: Quota): StatementVerifier {
  const deps = { identity: sites.b, store, clock, log: silentLog };
  return new StatementVerifier(deps, 'ab', quota);
}

function signedBy(site: FileTlsIdentity, claims: readonly KeyClaim[] = [claim]) {
  const signed = new StatementSigner(site).sign(claims);
  if (signed === undefined) throw new Error('a site has a signing key');
  return signed;
}

function derOf(pem: string | undefined): string {
  return new X509Certificate(pem ?? '').raw.toString('base64');
}

describe('key statements between neighbours', () => {
  test('are taken once; a repetition is known and not verified again', () => {
    expect(verifier.take(signedBy(sites.a))).toEqual([claim]);
    expect(verifier.take({ ...signedBy(sites.a), certificate: 'AAAA' })).toEqual([]);
    expect(verifier.counters).toMatchObject({ accepted: 2, forwarded: 1, dropped: 1, failed: 0 });
  });

  test('are refused with the certificate of another neighbour, of TLS, of nobody, or another’s signature', () => {
    const own = signedBy(sites.a);
    const refused = [
      signedBy(sites.c),
      { ...own, certificate: derOf(sites.a.material().cert) },
      { ...own, certificate: derOf(sites.b.signing()?.cert) },
      { ...own, certificate: 'AAAA' },
      { ...signedBy(sites.c), certificate: own.certificate },
    ];
    expect(refused.flatMap((signed) => verifier.take(signed))).toEqual([]);
    expect(verifier.counters.failed).toBe(refused.length);
    expect(verifier.take(own)).toEqual([claim]);
  });

  test('of a neighbour that is trusted no longer are refused', async () => {
    writeFileSync(siteFiles(directories.b).pins('ab'), '');
    await sites.b.reload();
    expect(verifier.take(signedBy(sites.a))).toEqual([]);
  });

  test('without end are not verified without end: beyond the rate they wait for a repetition', async () => {
    const clock = new ManualClock();
    const limited = newVerifier(clock, { burst: 3, perSecond: 1 });
    const claims = Array.from({ length: 5 }, (_, index) => ({
      ...claim,
      epoch: { number: index + 1, nonce: `000000000000000${index}` },
    }));
    const signed = signedBy(sites.a, claims);
    expect(limited.take(signed)).toHaveLength(3);
    expect(limited.counters).toMatchObject({ accepted: 5, forwarded: 3, failed: 2 });
    expect(limited.take(signed)).toEqual([]);
    await clock.advance(2_000);
    expect(limited.take(signed)).toHaveLength(2);
  });

  test('that a disk did not take are taken when they come again', () => {
    store.isFull = true;
    expect(verifier.take(signedBy(sites.a))).toEqual([]);
    store.isFull = false;
    expect(verifier.take(signedBy(sites.a))).toEqual([claim]);
    expect(verifier.counters).toMatchObject({ accepted: 2, forwarded: 1, failed: 1 });
  });

  test('are signed anew under the certificate of a new authority', async () => {
    const signer = new StatementSigner(sites.a);
    const before = signer.sign([claim]);
    expect(signer.sign([claim])).toEqual(before);
    let changes = 0;
    const cancel = signer.onKeyChange(() => {
      changes += 1;
    });
    const authority = new SiteAuthority({ clock: new SystemClock() }, directories.a);
    await authority.rotate('leaf');
    await sites.a.reload();
    expect(changes).toBe(0);
    await authority.prepareAuthority();
    await authority.activateAuthority();
    await sites.a.reload();
    cancel();
    expect(changes).toBe(1);
    const after = signer.sign([claim]);
    expect(after?.certificate).not.toBe(before?.certificate);
    expect(after?.statements).not.toEqual(before?.statements);
  });

  test('fit into a control message, as many as one may hold, with the longest names', () => {
    const epoch = { number: Number.MAX_SAFE_INTEGER, nonce: 'ffffffffffffffff' };
    const stream = { vm: vmIdSchema.parse('v'.repeat(64)), kind: 'status' } as const;
    const longest = { ...claim, stream, epoch, predecessor: epoch };
    const signed = signedBy(
      sites.a,
      Array.from({ length: keyStatementsMax }, () => longest),
    );
    const message = {
      v: controlMessageVersion,
      session: 's',
      kind: 'key-statements',
      ...signed,
    } as const;
    const bytes = encodeControl(message);
    expect(bytes.length).toBeLessThan(controlMessageBytesMax / 2);
    expect(decodeDownstream(bytes)).toEqual({ ok: true, message });
  });
});
