import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  FileTlsIdentity,
  fileTlsIdentityDefaults,
} from '../../../common/identity/file-tls-identity.ts';
import { acceptRevocationLists } from '../../../common/identity/invitation.ts';
import { SiteAuthority } from '../../../common/identity/site-authority.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import { buildSiteIdentity } from '../../../common/identity/site-identity.ts';
import { readSiteStatus } from '../../../common/identity/site-status.ts';
import { silentLog, type Log } from '../../../common/runtime/log.ts';
import { eventually } from '../../support/eventually.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const dayMs = 86_400_000;

let parent: ReturnType<typeof temporaryDirectory>;
let clock: ManualClock;
let events: string[];
let log: Log;
beforeEach(() => {
  parent = temporaryDirectory();
  clock = new ManualClock();
  events = [];
  const note = (event: string, fields: object = {}): void => {
    events.push(`${event} ${JSON.stringify(fields)}`);
  };
  log = { ...silentLog, warn: note, error: note, info: note };
});
afterEach(() => {
  parent[Symbol.dispose]();
});

async function sites(): Promise<{ a: string; b: string }> {
  const a = await makeSite(parent.path, 'site-a', { clock });
  const b = await makeSite(parent.path, 'site-b', { clock });
  await makeNeighbours('a-b', a, b, clock);
  return { a, b };
}

function read(path: string): string {
  return readFileSync(path, 'utf8');
}

function derOf(path: string): Uint8Array {
  return new X509Certificate(read(path)).raw;
}

function matching(pattern: RegExp): string[] {
  return events.filter((event) => pattern.test(event));
}

function stepDays(days: number): void {
  clock.stepWall(days * dayMs * 1_000);
}

describe('IdentityKeeper', () => {
  test('logs what needs a person at the start and once a day, though nobody asks for the status', async () => {
    const { a } = await sites();
    stepDays(3_600);
    const { service } = buildSiteIdentity({ clock, log }, a);
    await service.start();
    expect(matching(/authority of site-b/)).toEqual([
      expect.stringMatching(/^site-needs-attention .* in 50 days/),
    ]);
    clock.sleepThrough(23 * 3_600_000);
    await clock.advance(60_000);
    // Its round is over: our own list was due for renewal in it.
    await eventually(() => matching(/^identity-renewed/).length === 1, { timeoutMs: 10_000 });
    expect(matching(/authority of site-b/)).toHaveLength(1);
    clock.sleepThrough(3_600_000);
    await clock.advance(60_000);
    await eventually(
      () => matching(/authority of site-b/).some((event) => / in 48 days/.test(event)),
      {
        timeoutMs: 10_000,
      },
    );
    expect(matching(/authority of site-b/)).toHaveLength(2);
    await service.stop();
  });
});

describe('revocation by serial', () => {
  test('revokes a certificate that was replaced already, by its serial, and no other site’s', async () => {
    const { a, b } = await sites();
    const authority = new SiteAuthority({ clock }, a);
    const serialIn = (path: string) => new X509Certificate(read(path)).serialNumber;
    const replaced = serialIn(siteFiles(a).certificate('leaf'));
    await authority.rotate('leaf');
    const present = read(siteFiles(a).certificate('leaf'));
    expect(await authority.revokeSerial(replaced)).toBe(replaced.toLowerCase());
    // Neither is a certificate made anew that is not meant, nor one revoked twice listed twice.
    expect(await authority.revokeSerial(`00${replaced}`)).toBe(replaced.toLowerCase());
    expect(read(siteFiles(a).certificate('leaf'))).toBe(present);
    const atB = new FileTlsIdentity(
      { clock, log: silentLog },
      { ...fileTlsIdentityDefaults, directory: b },
    );
    await atB.start();
    await acceptRevocationLists(clock, b, 'a-b', read(siteFiles(a).revocationList));
    await atB.reload();
    expect(atB.relationOf(derOf(siteFiles(a).certificate('leaf')))).toBe('a-b');
    expect((await readSiteStatus(a, clock.wallUs() / 1_000)).revocationList?.revokedCount).toBe(1);
    await expect(
      authority.revokeSerial(serialIn(siteFiles(b).certificate('leaf'))),
    ).rejects.toMatchObject({ code: 'certificate-unknown' });
    // The one in use is replaced.
    await authority.revokeSerial(new X509Certificate(present).serialNumber);
    expect(read(siteFiles(a).certificate('leaf'))).not.toBe(present);
    await atB.stop();
    stepDays(8);
    await expect(authority.revokeSerial(replaced)).rejects.toMatchObject({
      code: 'certificate-unknown',
    });
  });

  test('a certificate in use that no record knows can be revoked, and a damaged record stops no renewal', async () => {
    const { a } = await sites();
    const authority = new SiteAuthority({ clock }, a);
    writeFileSync(siteFiles(a).issued, 'nonsense');
    const { serialNumber } = new X509Certificate(read(siteFiles(a).certificate('signing')));
    expect(await authority.revokeSerial(serialNumber)).toBe(serialNumber.toLowerCase());
    stepDays(5);
    expect(await authority.renewWhatIsDue()).toContain('leaf');
  });

  test('a list that is full says so before it can no longer be read', async () => {
    const { a } = await sites();
    const authority = new SiteAuthority({ clock }, a);
    await authority.revoke('leaf');
    const { revocations } = JSON.parse(read(siteFiles(a).revocations)) as {
      readonly revocations: readonly { readonly serial: string }[];
    };
    const many = Array.from({ length: 899 }, (_each, index) => ({
      ...revocations[0],
      serial: (0x4000_0000 + index).toString(16),
    }));
    const full = { revocations: [...revocations, ...many] };
    writeFileSync(siteFiles(a).revocations, JSON.stringify(full));
    const before = read(siteFiles(a).certificate('leaf'));
    await expect(authority.revoke('leaf')).rejects.toMatchObject({ code: 'revocations-full' });
    expect(read(siteFiles(a).certificate('leaf'))).toBe(before);
  });
});
