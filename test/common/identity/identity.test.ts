import { X509Certificate } from 'node:crypto';
import { chmodSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  createAuthority,
  issueLeaf,
  issueSigningCertificate,
} from '../../../common/identity/certificate-maker.ts';
import { authoritySubject } from '../../../common/identity/certificates.ts';
import {
  FileTlsIdentity,
  fileTlsIdentityDefaults,
} from '../../../common/identity/file-tls-identity.ts';
import {
  fingerprintOf,
  formatFingerprint,
  parseFingerprint,
} from '../../../common/identity/fingerprint.ts';
import {
  acceptRevocationLists,
  createInvitation,
  fingerprintsToCompare,
  trustInvitation,
} from '../../../common/identity/invitation.ts';
import { readRevocationList } from '../../../common/identity/revocation-list.ts';
import { defaultLifetimes, SiteAuthority } from '../../../common/identity/site-authority.ts';
import { readPair, siteFiles, splitPem } from '../../../common/identity/site-files.ts';
import { readSiteStatus } from '../../../common/identity/site-status.ts';
import type { Log } from '../../../common/runtime/log.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { makeNeighbours, makeSite, trustSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const dayMs = 86_400_000;

let parent: ReturnType<typeof temporaryDirectory>;
let clock: ManualClock;
let events: string[];
let log: Log;
const cleanUp: (() => Promise<void>)[] = [];
beforeEach(() => {
  parent = temporaryDirectory();
  clock = new ManualClock();
  events = [];
  const note = (event: string, fields: object = {}): void => {
    events.push(`${event} ${JSON.stringify(fields)}`);
  };
  log = { ...silentLog, warn: note, error: note, info: note };
});
afterEach(async () => {
  for (const stop of cleanUp.splice(0)) await stop();
  parent[Symbol.dispose]();
});

async function sites(): Promise<{ a: string; b: string }> {
  const a = await makeSite(parent.path, 'site-a', { clock, listen: ['a.example:8883', '[::1]:1'] });
  const b = await makeSite(parent.path, 'site-b', { clock });
  await makeNeighbours('a-b', a, b, clock);
  return { a, b };
}

async function started(directory: string): Promise<FileTlsIdentity> {
  const identity = new FileTlsIdentity({ clock, log }, { ...fileTlsIdentityDefaults, directory });
  await identity.start();
  cleanUp.push(() => identity.stop());
  return identity;
}

function read(path: string): string {
  return readFileSync(path, 'utf8');
}

function derOf(path: string): Uint8Array {
  return new X509Certificate(read(path)).raw;
}

function stepDays(days: number): void {
  clock.stepWall(days * dayMs * 1_000);
}

describe('FileTlsIdentity', () => {
  test('tells the relation whose pinned authority issued a certificate', async () => {
    const { a, b } = await sites();
    const [atA, atB] = [await started(a), await started(b)];
    expect(atA.relationOf(derOf(siteFiles(b).certificate('leaf')))).toBe('a-b');
    expect(atB.relationOf(derOf(siteFiles(a).certificate('leaf')))).toBe('a-b');
    // Its own certificate is no neighbour's.
    expect(atA.relationOf(derOf(siteFiles(a).certificate('leaf')))).toBeUndefined();
    expect(events.at(-1)).toContain('unknown-authority');
  });

  test('tells certificates for TLS and for signatures apart, and authorities from both', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const files = siteFiles(b);
    expect(atA.relationOf(derOf(files.certificate('signing')))).toBeUndefined();
    expect(atA.relationOf(derOf(files.certificate('signing')), 'signing')).toBe('a-b');
    expect(atA.relationOf(derOf(files.certificate('leaf')), 'signing')).toBeUndefined();
    for (const use of ['tls', 'live', 'signing'] as const) {
      expect(atA.relationOf(derOf(files.certificate('authority')), use)).toBeUndefined();
    }
  });

  test('refuses what is not yet valid, has expired, or comes from an expired authority, by its own clock', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const der = derOf(siteFiles(b).certificate('leaf'));
    stepDays(-1);
    expect(atA.judge(der, 'tls')).toMatchObject({ ok: false, reason: 'not-yet-valid' });
    stepDays(9);
    expect(atA.judge(der, 'tls')).toMatchObject({ ok: false, reason: 'expired' });
    stepDays(3_650);
    expect(atA.judge(der, 'tls')).toMatchObject({ ok: false, reason: 'authority-expired' });
  });

  test('a live connection may outlast its certificate by thirty days, a handshake may not', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const der = derOf(siteFiles(b).certificate('leaf'));
    stepDays(36);
    expect([atA.relationOf(der, 'live'), atA.relationOf(der)]).toEqual(['a-b', undefined]);
    stepDays(2);
    expect(atA.relationOf(der, 'live')).toBeUndefined();
  });

  test('with a late or missing revocation list, certificates are accepted up to five days of age, then refused', async () => {
    const { a, b } = await sites();
    rmSync(siteFiles(a).neighbourRevocationList('a-b'));
    const atA = await started(a);
    const der = derOf(siteFiles(b).certificate('leaf'));
    stepDays(4.9);
    expect(atA.relationOf(der)).toBe('a-b');
    stepDays(0.2);
    expect(atA.judge(der, 'tls')).toMatchObject({ ok: false, reason: 'revocation-unknown' });
    await new SiteAuthority({ clock }, b).renewWhatIsDue();
    await acceptRevocationLists(clock, a, 'a-b', read(siteFiles(b).revocationList));
    await atA.reload();
    expect(atA.relationOf(der)).toBe('a-b');
  });

  test('a healthy neighbour renews before the grace ends, so that a list never delivered cuts nobody', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const authority = new SiteAuthority({ clock }, b);
    for (let hours = 0; hours < 24 * 15; hours += 6) {
      stepDays(0.25);
      await authority.renewWhatIsDue();
      expect(atA.relationOf(derOf(siteFiles(b).certificate('leaf')))).toBe('a-b');
      expect(atA.relationOf(derOf(siteFiles(b).certificate('signing')), 'signing')).toBe('a-b');
    }
  });

  test('a certificate that was issued for longer than they are now is replaced as if it were not', async () => {
    const lifetimes = { ...defaultLifetimes, signingMs: 365 * dayMs };
    const a = await makeSite(parent.path, 'site-a', { clock, lifetimes });
    const authority = new SiteAuthority({ clock }, a);
    stepDays(4);
    expect(await authority.renewWhatIsDue()).not.toContain('signing');
    stepDays(1);
    expect(await authority.renewWhatIsDue()).toContain('signing');
  });

  test('a late list refuses signatures, but not those that bring the next one, unless it names their key', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const signing = derOf(siteFiles(b).certificate('signing'));
    stepDays(6);
    expect(atA.judge(signing, 'signing')).toMatchObject({ reason: 'revocation-unknown' });
    expect(atA.judge(signing, 'lists')).toEqual({ ok: true, relation: 'a-b' });
    expect(atA.judge(derOf(siteFiles(b).certificate('leaf')), 'lists')).toMatchObject({
      reason: 'wrong-usage',
    });
    stepDays(2);
    expect(atA.judge(signing, 'lists')).toMatchObject({ reason: 'expired' });
  });

  test('an unreadable revocation list refuses its neighbour; one that breaks later keeps what was revoked', async () => {
    const { a, b } = await sites();
    const list = siteFiles(a).neighbourRevocationList('a-b');
    const revoked = derOf(siteFiles(b).certificate('leaf'));
    await new SiteAuthority({ clock }, b).revoke('leaf');
    await acceptRevocationLists(clock, a, 'a-b', read(siteFiles(b).revocationList));
    const atA = await started(a);
    expect(atA.judge(revoked, 'tls')).toMatchObject({ ok: false, reason: 'revoked' });
    writeFileSync(list, 'nonsense');
    await atA.reload();
    expect(atA.judge(revoked, 'tls')).toMatchObject({ ok: false, reason: 'revoked' });
    const anew = await started(a);
    const present = derOf(siteFiles(b).certificate('leaf'));
    expect(anew.judge(present, 'tls')).toMatchObject({ ok: false, reason: 'revocation-unknown' });
  });

  test('an older revocation list does not bring a revoked certificate back', async () => {
    const { a, b } = await sites();
    const older = read(siteFiles(b).revocationList);
    const revoked = derOf(siteFiles(b).certificate('leaf'));
    await new SiteAuthority({ clock }, b).revoke('leaf');
    await acceptRevocationLists(clock, a, 'a-b', read(siteFiles(b).revocationList));
    const atA = await started(a);
    await acceptRevocationLists(clock, a, 'a-b', older);
    await atA.reload();
    expect(atA.judge(revoked, 'live')).toMatchObject({ ok: false, reason: 'revoked' });
    writeFileSync(siteFiles(a).neighbourRevocationList('a-b'), older);
    await atA.reload();
    expect(atA.judge(revoked, 'live')).toMatchObject({ ok: false, reason: 'revoked' });
  });

  test('notices changed files by itself within five seconds, and calls listeners once for each change', async () => {
    const { a } = await sites();
    const atA = await started(a);
    let changeCount = 0;
    atA.onChange(() => {
      changeCount += 1;
    });
    const before = atA.material();
    await new SiteAuthority({ clock }, a).rotate('leaf');
    await clock.advance(5_000);
    await atA.reload();
    expect(changeCount).toBe(1);
    expect(atA.material().cert).not.toBe(before.cert);
    expect(atA.material()).toBe(atA.material());
  });

  test('half a renewal leaves the last good pair in force, and trust still changes', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const before = atA.material();
    const other = await issueLeaf(
      {
        cert: read(siteFiles(a).certificate('authority')),
        key: read(siteFiles(a).key('authority')),
      },
      { siteName: 'site-a', hosts: [] },
      { notBeforeMs: 0, notAfterMs: clock.wallUs() / 1_000 + dayMs },
    );
    writeFileSync(siteFiles(a).key('leaf'), other.key);
    writeFileSync(siteFiles(a).pins('a-b'), '');
    await atA.reload();
    expect(atA.material()).toMatchObject({ cert: before.cert, key: before.key, ca: [] });
    expect(atA.relationOf(derOf(siteFiles(b).certificate('leaf')))).toBeUndefined();
    await new SiteAuthority({ clock }, a).renewWhatIsDue();
    await atA.reload();
    expect(atA.material().cert).not.toBe(before.cert);
  });

  test('does not throw, whatever the bytes', async () => {
    const { a, b } = await sites();
    const atA = await started(a);
    const good = derOf(siteFiles(b).certificate('leaf'));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2_000 }), (bytes) => {
        expect(atA.relationOf(bytes)).toBeUndefined();
      }),
    );
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (index, change) => {
        const changed = Uint8Array.from(good);
        changed[index] = (changed[index] ?? 0) ^ change;
        expect(atA.relationOf(changed)).toBeUndefined();
      }),
    );
  });

  test('logs and errors hold no key material', async () => {
    const { a } = await sites();
    const atA = await started(a);
    const key = read(siteFiles(a).key('leaf'));
    writeFileSync(siteFiles(a).key('leaf'), key.replace(/[A-Z]/g, 'x'));
    writeFileSync(siteFiles(a).document, '{');
    await atA.reload();
    expect(events.length).toBeGreaterThan(0);
    const body = key.split('\n')[1] ?? 'no key';
    expect(events.join('\n')).not.toContain(body.slice(0, 20));
  });
});

describe('SiteAuthority', () => {
  test('renews leaf and list when two thirds, and half, of their time are over, and not before', async () => {
    const { a } = await sites();
    const authority = new SiteAuthority({ clock }, a);
    expect(await authority.renewWhatIsDue()).toEqual([]);
    stepDays(0.49);
    expect(await authority.renewWhatIsDue()).toEqual([]);
    stepDays(0.02);
    expect(await authority.renewWhatIsDue()).toEqual(['revocation-list']);
    stepDays(4.17);
    expect(await authority.renewWhatIsDue()).toEqual(['leaf', 'signing', 'revocation-list']);
  });

  test('issues a new leaf when the addresses that the site listens on change', async () => {
    const { a } = await sites();
    const files = siteFiles(a);
    const leaf = new X509Certificate(read(files.certificate('leaf')));
    expect(leaf.subjectAltName).toBe(
      'URI:urn:isobar:site:site-a, DNS:a.example, IP Address:0:0:0:0:0:0:0:1',
    );
    writeFileSync(files.document, read(files.document).replace('a.example', 'b.example'));
    expect(await new SiteAuthority({ clock }, a).renewWhatIsDue()).toEqual(['leaf']);
  });

  test('writes keys with mode 600 whatever the umask, and replaces a pair that does not belong together', async () => {
    const before = process.umask(0);
    try {
      const { a } = await sites();
      const files = siteFiles(a);
      for (const stem of ['authority', 'leaf', 'signing'] as const) {
        expect(statSync(files.key(stem)).mode & 0o777).toBe(0o600);
        expect(statSync(files.certificate(stem)).mode & 0o777).toBe(0o644);
      }
      writeFileSync(files.certificate('leaf'), read(files.certificate('signing')));
      expect(await new SiteAuthority({ clock }, a).renewWhatIsDue()).toEqual(['leaf']);
      expect(await readPair(files, 'leaf')).toBeDefined();
      chmodSync(files.key('leaf'), 0o640);
      const { warnings } = await readSiteStatus(a, clock.wallUs() / 1_000);
      expect(warnings.join('\n')).toContain('others may read');
    } finally {
      process.umask(before);
    }
  });

  test('two processes that renew at once leave one matching pair', async () => {
    const { a } = await sites();
    stepDays(5);
    // Waiting for the lock takes real time, as what the others write does.
    const waiting = new (class extends ManualClock {
      override sleep(durationMs: number): Promise<void> {
        return delay(durationMs);
      }
    })(clock.wallUs());
    const renewed = await Promise.all(
      [1, 2, 3].map(() => new SiteAuthority({ clock: waiting }, a).renewWhatIsDue()),
    );
    expect(renewed.flat().filter((what) => what === 'leaf')).toHaveLength(1);
    expect(await readPair(siteFiles(a), 'leaf')).toBeDefined();
  });

  test('ends an activation that a crash cut off between key and certificate', async () => {
    const { a } = await sites();
    const authority = new SiteAuthority({ clock }, a);
    await authority.prepareAuthority();
    const files = siteFiles(a);
    const next = read(files.certificate('next-authority'));
    writeFileSync(files.key('authority'), read(files.key('next-authority')));
    await authority.renewWhatIsDue();
    expect(read(files.certificate('authority'))).toBe(next);
    const leaf = new X509Certificate(read(files.certificate('leaf')));
    expect(leaf.verify(new X509Certificate(next).publicKey)).toBe(true);
  });

  test('keeps a revocation in the lists until the certificate has run out, under the authority that issued it', async () => {
    const { a } = await sites();
    const authority = new SiteAuthority({ clock }, a);
    const old = read(siteFiles(a).certificate('authority'));
    const serial = await authority.revoke('leaf');
    await authority.prepareAuthority();
    await authority.activateAuthority();
    const listOf = () => {
      const blocks = read(siteFiles(a).revocationList).split(/(?<=END X509 CRL-----\n)/);
      const lists = blocks.map((pem) => readRevocationList(pem, old));
      return lists.find((list) => list !== undefined);
    };
    expect(listOf()?.serials).toEqual(new Set([serial]));
    stepDays(8);
    await authority.renewWhatIsDue();
    expect(listOf()?.serials).toEqual(new Set());
  });
});

describe('what crosses between sites', () => {
  test('what is left over of a relation gives its former neighbour no part in a new one of that name', async () => {
    const [a, x, y] = [
      await makeSite(parent.path, 'site-a', { clock }),
      await makeSite(parent.path, 'site-x', { clock }),
      await makeSite(parent.path, 'site-y', { clock }),
    ];
    await trustSite(clock, a, x, 'r', 'producer');
    const { document } = siteFiles(a);
    writeFileSync(document, JSON.stringify({ ...JSON.parse(read(document)), neighbours: [] }));
    const again = await createInvitation(x, 'r', 'producer');
    expect(await fingerprintsToCompare(clock, a, again)).toHaveLength(1);
    await trustSite(clock, a, y, 'r', 'producer');
    const files = siteFiles(x);
    const authority = {
      cert: read(files.certificate('authority')),
      key: read(files.key('authority')),
    };
    const nowMs = clock.wallUs() / 1_000;
    const validity = { notBeforeMs: nowMs - 1_000, notAfterMs: nowMs + dayMs };
    const forged = await issueLeaf(authority, { siteName: 'site-y', hosts: [] }, validity);
    const atA = await started(a);
    expect(atA.material().ca).toHaveLength(1);
    expect(atA.judge(new X509Certificate(forged.cert).raw, 'tls')).toEqual({
      ok: false,
      reason: 'unknown-authority',
    });
    expect(atA.relationOf(derOf(siteFiles(y).certificate('leaf')))).toBe('r');
    expect(splitPem(read(siteFiles(a).neighbourRevocationList('r')))).toHaveLength(1);
  });

  test('an authority is pinned for one relation only', async () => {
    const { a, b } = await sites();
    const invitation = await createInvitation(b, 'other', 'consumer');
    const confirmed = invitation.authorities.map((pem) => fingerprintOf(pem));
    await expect(trustInvitation(clock, a, invitation, confirmed)).rejects.toMatchObject({
      code: 'invitation-refused',
    });
  });

  test('subjects of authorities name nobody, and a signing certificate is no TLS certificate', async () => {
    const validity = { notBeforeMs: 0, notAfterMs: 2_000_000_000_000 };
    const authority = await createAuthority('site-a', validity);
    expect(new X509Certificate(authority.cert).subject).toBe(authoritySubject);
    const signing = await issueSigningCertificate(authority, 'site-a', validity);
    expect(new X509Certificate(signing.cert).keyUsage).toEqual(['1.3.6.1.4.1.32473.1.1']);
  });

  test('a fingerprint is read back as people write it, and nothing else is one', () => {
    const fingerprint = '0123456789abcdef'.repeat(4);
    const shown = formatFingerprint(fingerprint);
    expect(shown).toBe(`SHA256 ${Array(4).fill('0123 4567 89ab cdef').join(' ')}`);
    for (const text of [
      shown,
      shown.toUpperCase(),
      fingerprint,
      shown.slice(7).replaceAll(' ', ':'),
    ]) {
      expect(parseFingerprint(text)).toBe(fingerprint);
    }
    for (const text of ['', 'SHA256', fingerprint.slice(1), `${fingerprint}0`, 'g'.repeat(64)]) {
      expect(parseFingerprint(text)).toBeUndefined();
    }
  });

  test('lists of the far future are read as well: their numbers take more than four bytes', async () => {
    const later = new ManualClock(Date.parse('2045-01-01') * 1_000);
    const directory = await makeSite(parent.path, 'site-l', {
      clock: later,
      lifetimes: defaultLifetimes,
    });
    const files = siteFiles(directory);
    const list = readRevocationList(
      read(files.revocationList),
      read(files.certificate('authority')),
    );
    expect(list?.number).toBe(Date.parse('2045-01-01') / 1_000);
  });
});
