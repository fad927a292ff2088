import { X509Certificate } from 'node:crypto';
import { rm } from 'node:fs/promises';

import { z } from 'zod';

import type { Clock } from '../runtime/clock.ts';
import { fingerprintOf, formatFingerprint } from './fingerprint.ts';
import { IdentityError } from './identity-error.ts';
import { readRevocationList, revocationListCharsMax } from './revocation-list.ts';
import {
  addressSchema,
  publicMode,
  readSiteDocument,
  readTextIfThere,
  siteFiles,
  siteNameSchema,
  splitPem,
  writeFileAtomically,
  writeSiteDocument,
  type SiteDocument,
  type SiteFiles,
  type SiteNeighbour,
} from './site-files.ts';
import { withSiteLock } from './site-lock.ts';

/** Certificates and lists in one document; while it rotates, a site has up to three. */
const authoritiesMax = 3;
const pemCharsMax = 65_536;

/** What a site hands to a neighbour-to-be. It holds nothing secret; its fingerprint is compared on another way. */
export const invitationSchema = z.strictObject({
  apiVersion: z.literal('isobar/v1'),
  kind: z.literal('SiteInvitation'),
  site: siteNameSchema.describe('name of the inviting site'),
  relation: siteNameSchema.describe('what both call their relation'),
  role: z.enum(['producer', 'consumer']).describe('what the inviting site is in it'),
  address: addressSchema.optional().describe('where the inviting site listens, when it does'),
  authorities: z.array(z.string().max(pemCharsMax)).min(1).max(authoritiesMax),
  revocationLists: z.array(z.string().max(revocationListCharsMax)).max(authoritiesMax),
});

export type Invitation = z.output<typeof invitationSchema>;

/**
 * The invitation of the site in `directory`. A prepared authority is in it too, so that a neighbour who trusts it once
 * more stays connected when that authority takes over.
 */
export async function createInvitation(
  directory: string,
  relation: string,
  role: 'producer' | 'consumer',
): Promise<Invitation> {
  const files = siteFiles(directory);
  const { name, listen } = readSiteDocument(files);
  const authorities: string[] = [];
  for (const stem of ['authority', 'next-authority'] as const) {
    const cert = await readTextIfThere(files.certificate(stem));
    if (cert !== undefined) authorities.push(cert);
  }
  const [address] = listen;
  return invitationSchema.parse({
    apiVersion: 'isobar/v1',
    kind: 'SiteInvitation',
    site: name,
    relation,
    role,
    ...(address === undefined ? {} : { address }),
    authorities,
    revocationLists: splitPem((await readTextIfThere(files.revocationList)) ?? ''),
  });
}

/** The fingerprints in the invitation that are not pinned for its relation yet: what people have to compare. */
export async function fingerprintsToCompare(
  clock: Clock,
  directory: string,
  invitation: Invitation,
): Promise<readonly string[]> {
  await refuseUnfit(invitation);
  refuseExpired(invitation, clock.wallUs() / 1_000);
  const files = siteFiles(directory);
  const pinned = await pinsOf(files, readSiteDocument(files), invitation.relation);
  const known = new Set(pinned.map((pem) => fingerprintOf(pem)));
  return invitation.authorities
    .map((pem) => fingerprintOf(pem))
    .filter((fingerprint) => !known.has(fingerprint));
}

/**
 * Pins the authorities of the invitation, beside those already pinned for its relation.
 * @param confirmed fingerprints that a person compared: each authority that is new must be among them.
 * @throws IdentityError `invitation-refused`, `fingerprint-mismatch`; nothing is changed then.
 */
export function trustInvitation(
  clock: Clock,
  directory: string,
  invitation: Invitation,
  confirmed: readonly string[],
): Promise<SiteNeighbour> {
  const files = siteFiles(directory);
  return withSiteLock(clock, files, async () => {
    const toCompare = await fingerprintsToCompare(clock, directory, invitation);
    const unconfirmed = toCompare.find((fingerprint) => !confirmed.includes(fingerprint));
    if (unconfirmed !== undefined) {
      throw new IdentityError(
        'fingerprint-mismatch',
        `the invitation's authority is ${formatFingerprint(unconfirmed)}, which is not what was confirmed: ask ${invitation.site} for its fingerprint on another way, and trust nothing if they differ`,
      );
    }
    const document = readSiteDocument(files);
    const { relation, site, role, address } = invitation;
    const present = document.neighbours.find((each) => each.relation === relation);
    if (site === document.name) refuse('it is this site’s own');
    if (present !== undefined && (present.site !== site || present.role !== role)) {
      refuse(`relation ${relation} is with ${present.site} as ${present.role} already`);
    }
    await refusePinnedElsewhere(files, document.neighbours, invitation);
    const trustedAt = present?.trustedAt ?? new Date(clock.wallUs() / 1_000).toISOString();
    const place = address ?? present?.address;
    const neighbour = {
      relation,
      site,
      role,
      ...(place === undefined ? {} : { address: place }),
      trustedAt,
    };
    if (present === undefined) await rm(files.neighbourRevocationList(relation), { force: true });
    await addPins(files, await pinsOf(files, document, relation), invitation);
    await addRevocationLists(files, relation, invitation.revocationLists);
    const others = document.neighbours.filter((each) => each.relation !== relation);
    await writeSiteDocument(files, { ...document, neighbours: [...others, neighbour] });
    return neighbour;
  });
}

/**
 * Takes the newest revocation lists of a neighbour. Lists that none of its authorities signed and lists older than
 * what is there change nothing; lists that are there already are not even read.
 * @returns whether anything changed
 * @throws IdentityError `revocations-refused` when no list is of this neighbour.
 */
export function acceptRevocationLists(
  clock: Clock,
  directory: string,
  relation: string,
  pem: string,
): Promise<boolean> {
  const files = siteFiles(directory);
  return withSiteLock(clock, files, async () => {
    const offered = pem.length > revocationListCharsMax * authoritiesMax ? [] : splitPem(pem);
    const held = new Set(await heldListsOf(files, relation));
    const unknown = offered.filter((list) => !held.has(list));
    if (offered.length > 0 && unknown.length === 0) return false;
    // Each costs a verification for each pin, and a site has no more.
    const lists = offered.length > authoritiesMax ? [] : unknown;
    const { ofNeighbourCount, hasChanged } = await addRevocationLists(files, relation, lists);
    if (ofNeighbourCount > 0 || unknown.length < offered.length) return hasChanged;
    throw new IdentityError(
      'revocations-refused',
      `no revocation list of the neighbour of relation ${relation} is in it`,
    );
  });
}

/**
 * Withdraws trust: in one authority, or in the neighbour altogether. Its connections are cut by every process that
 * watches the directory.
 * @throws IdentityError `neighbour-unknown`
 */
export function withdrawTrust(
  clock: Clock,
  directory: string,
  relation: string,
  fingerprint?: string,
): Promise<void> {
  const files = siteFiles(directory);
  return withSiteLock(clock, files, async () => {
    const document = readSiteDocument(files);
    const pins = splitPem((await readTextIfThere(files.pins(relation))) ?? '');
    const kept =
      fingerprint === undefined ? [] : pins.filter((pem) => fingerprintOf(pem) !== fingerprint);
    const isKnown = document.neighbours.some((each) => each.relation === relation);
    if (!isKnown || (fingerprint !== undefined && kept.length === pins.length)) {
      const what = fingerprint === undefined ? 'neighbour' : 'such authority';
      throw new IdentityError(
        'neighbour-unknown',
        `relation ${relation} has no ${what}: isobar site status shows those there are`,
      );
    }
    await writeFileAtomically(files.pins(relation), kept.join(''), publicMode);
    if (fingerprint !== undefined) return;
    const neighbours = document.neighbours.filter((each) => each.relation !== relation);
    await rm(files.neighbourRevocationList(relation), { force: true });
    await writeSiteDocument(files, { ...document, neighbours });
  });
}

async function refuseUnfit({ authorities, site }: Invitation): Promise<void> {
  // Its libraries are for whoever accepts an invitation, not for every process of a site.
  const { authorityProblem } = await import('./certificate-maker.ts');
  for (const pem of authorities) {
    const problem =
      splitPem(pem).length === 1 ? await authorityProblem(pem, site) : 'it is not one PEM block';
    if (problem !== undefined) refuse(`its authority is not acceptable: ${problem}`);
  }
}

/** While it rotates, one of a site's authorities may have run out; the others do. */
function refuseExpired({ authorities, site }: Invitation, nowMs: number): void {
  const expiresMs = authorities.map((pem) => Date.parse(new X509Certificate(pem).validTo));
  const lastMs = Math.max(...expiresMs);
  if (lastMs > nowMs) return;
  refuse(
    `its authority expired on ${new Date(lastMs).toISOString()}: ask ${site} for a new invitation`,
  );
}

/** A certificate must lead to one relation only. */
async function refusePinnedElsewhere(
  files: SiteFiles,
  neighbours: readonly SiteNeighbour[],
  invitation: Invitation,
): Promise<void> {
  const offered = new Set(invitation.authorities.map((pem) => fingerprintOf(pem)));
  for (const { relation } of neighbours) {
    if (relation === invitation.relation) continue;
    const pins = splitPem((await readTextIfThere(files.pins(relation))) ?? '');
    if (pins.some((pem) => offered.has(fingerprintOf(pem)))) {
      refuse(
        `its authority is pinned for relation ${relation} already; two sites have one relation`,
      );
    }
  }
}

function refuse(reason: string): never {
  throw new IdentityError('invitation-refused', `the invitation is refused: ${reason}`);
}

/** What is pinned for a neighbour of `site.json`. For another relation a file may be left over, of whatever site: nothing. */
async function pinsOf(
  files: SiteFiles,
  { neighbours }: SiteDocument,
  relation: string,
): Promise<readonly string[]> {
  if (!neighbours.some((each) => each.relation === relation)) return [];
  return splitPem((await readTextIfThere(files.pins(relation))) ?? '');
}

async function addPins(
  files: SiteFiles,
  pins: readonly string[],
  { relation, authorities }: Invitation,
): Promise<void> {
  const known = new Set(pins.map((pem) => fingerprintOf(pem)));
  const added = authorities.filter((pem) => !known.has(fingerprintOf(pem)));
  if (pins.length + added.length > authoritiesMax) {
    refuse(
      `more than ${authoritiesMax} authorities would be pinned: withdraw one by isobar site revoke ${relation} --authority FINGERPRINT`,
    );
  }
  if (added.length === 0) return;
  await writeFileAtomically(files.pins(relation), [...pins, ...added].join(''), publicMode);
}

/** Keeps the newest list of each pinned authority; tells how many of `offered` are of one. */
async function addRevocationLists(
  files: SiteFiles,
  relation: string,
  offered: readonly string[],
): Promise<{ readonly ofNeighbourCount: number; readonly hasChanged: boolean }> {
  const pins = splitPem((await readTextIfThere(files.pins(relation))) ?? '');
  const present = await heldListsOf(files, relation);
  const kept: string[] = [];
  let ofNeighbourCount = 0;
  for (const authority of pins) {
    let newest: { pem: string; number: number } | undefined;
    for (const [index, pem] of [...present, ...offered].entries()) {
      const list = readRevocationList(pem, authority);
      if (list === undefined) continue;
      if (index >= present.length) ofNeighbourCount += 1;
      if (list.number > (newest?.number ?? -1)) newest = { pem, number: list.number };
    }
    if (newest !== undefined) kept.push(newest.pem);
  }
  const hasChanged = ofNeighbourCount > 0 && kept.join('') !== present.join('');
  if (hasChanged) {
    await writeFileAtomically(files.neighbourRevocationList(relation), kept.join(''), publicMode);
  }
  return { ofNeighbourCount, hasChanged };
}

async function heldListsOf(files: SiteFiles, relation: string): Promise<readonly string[]> {
  return splitPem((await readTextIfThere(files.neighbourRevocationList(relation))) ?? '');
}
