import { X509Certificate } from 'node:crypto';
import { stat } from 'node:fs/promises';

import { systemErrorCode } from '../runtime/operating-error.ts';
import { fingerprintOf } from './fingerprint.ts';
import { readRevocationList, type RevocationList } from './revocation-list.ts';
import {
  readPair,
  readSiteDocument,
  readTextIfThere,
  secretMode,
  siteFiles,
  splitPem,
  type PairStem,
  type SiteFiles,
  type SiteNeighbour,
} from './site-files.ts';

/** A certificate as people ask about it. Times are ISO 8601, UTC. */
export interface CertificateStatus {
  readonly fingerprint: string;
  readonly expiresAt: string;
}

export interface RevocationListStatus {
  readonly issuedAt: string;
  readonly nextUpdateAt: string;
  readonly revokedCount: number;
}

export interface NeighbourStatus extends Pick<SiteNeighbour, 'relation' | 'site' | 'role'> {
  readonly address: string | null;
  readonly authorities: readonly CertificateStatus[];
  /** The newest of its authorities' lists. */
  readonly revocationList: RevocationListStatus | null;
}

export interface SiteStatus {
  readonly name: string;
  readonly listen: readonly string[];
  readonly authority: CertificateStatus | null;
  readonly nextAuthority: CertificateStatus | null;
  readonly leaf: CertificateStatus | null;
  readonly signing: CertificateStatus | null;
  readonly revocationList: RevocationListStatus | null;
  readonly neighbours: readonly NeighbourStatus[];
  /** What a person should do something about, each in one sentence. */
  readonly warnings: readonly string[];
}

const dayMs = 86_400_000;
/** Pinning a new authority takes people on both sides. */
const authorityWarningMs = 60 * dayMs;
/** Less of a lifetime than this left: renewal, which comes at a third, has not happened. */
const overdueRatio = 0.25;

/** Whose private keys are looked at, and what to do without them. */
const keys = {
  authority: {
    whose: "this site's authority",
    remedy: 'restore it from a backup, as nothing of this site is renewed without it',
  },
  leaf: { whose: 'the TLS certificate', remedy: 'let a process of the site run' },
  signing: { whose: 'the signing certificate', remedy: 'let a process of the site run' },
} as const;

/** What there is in a site directory, and what is wrong with it. Of private keys it tells only whether they fit. */
export async function readSiteStatus(directory: string, nowMs: number): Promise<SiteStatus> {
  const files = siteFiles(directory);
  const document = readSiteDocument(files);
  const warnings: string[] = [];
  const authority = await certificateOf(files, 'authority');
  const leaf = await certificateOf(files, 'leaf');
  const signing = await certificateOf(files, 'signing');
  const revocationList = await newestList(files.revocationList, authority ? [authority] : []);
  warnAboutAuthority(warnings, 'this site', authority, nowMs);
  warnAboutRenewal(warnings, 'TLS', leaf, nowMs);
  warnAboutRenewal(warnings, 'signing', signing, nowMs);
  if (revocationList === undefined || nowMs > revocationList.nextUpdateMs) {
    warnings.push('the revocation list of this site is late: let a process of the site run');
  }
  for (const stem of [
    'authority',
    'next-authority',
    'previous-authority',
    'leaf',
    'signing',
  ] as const) {
    warnings.push(...(await modeWarning(files.key(stem))));
  }
  for (const [stem, certificate] of [
    ['authority', authority],
    ['leaf', leaf],
    ['signing', signing],
  ] as const) {
    if (certificate === undefined || (await readPair(files, stem)) !== undefined) continue;
    const { whose, remedy } = keys[stem];
    warnings.push(`the private key of ${whose} is missing, damaged or of another: ${remedy}`);
  }
  const neighbours: NeighbourStatus[] = [];
  for (const neighbour of document.neighbours) {
    neighbours.push(await neighbourStatus(files, neighbour, nowMs, warnings));
  }
  const next = await certificateOf(files, 'next-authority');
  if (next !== undefined) warnings.push(preparedWarning(document.neighbours));
  return {
    name: document.name,
    listen: document.listen,
    authority: show(authority),
    nextAuthority: show(next),
    leaf: show(leaf),
    signing: show(signing),
    revocationList: showList(revocationList),
    neighbours,
    warnings,
  };
}

async function neighbourStatus(
  files: SiteFiles,
  { relation, site, role, address }: SiteNeighbour,
  nowMs: number,
  warnings: string[],
): Promise<NeighbourStatus> {
  const pins = splitPem((await readTextIfThere(files.pins(relation))) ?? '');
  const authorities = pins.map((pem) => parsed(pem)).filter((each) => each !== undefined);
  const list = await newestList(files.neighbourRevocationList(relation), authorities);
  if (authorities.length === 0) {
    warnings.push(`${site} (${relation}) has no pinned authority and can't connect`);
  } else if (authorities.length < pins.length) {
    warnings.push(`a pinned authority of ${site} (${relation}) is damaged: trust a new invitation`);
  }
  const inUse = authorities.filter((each) => !isSuperseded(each, authorities, nowMs));
  for (const each of inUse) warnAboutAuthority(warnings, `${site} (${relation})`, each, nowMs);
  if (list === undefined || nowMs > list.nextUpdateMs) {
    warnings.push(
      `the revocation list of ${site} (${relation}) is late: only certificates of the last five days are accepted`,
    );
  }
  return {
    relation,
    site,
    role,
    address: address ?? null,
    authorities: authorities.map((each) => statusOf(each)),
    revocationList: showList(list),
  };
}

/** Of no more use: it has run out, and one that has not is pinned beside it. Until then the neighbour may issue from it. */
function isSuperseded(
  authority: X509Certificate,
  authorities: readonly X509Certificate[],
  nowMs: number,
): boolean {
  return expiryMs(authority) <= nowMs && authorities.some((each) => expiryMs(each) > nowMs);
}

function preparedWarning(neighbours: readonly SiteNeighbour[]): string {
  const relations = neighbours.map(({ relation }) => relation).join(', ') || 'there is none';
  return `a next authority is prepared and not in use: when every neighbour (${relations}) has pinned it, isobar site rotate authority --activate`;
}

function warnAboutAuthority(
  warnings: string[],
  whose: string,
  certificate: X509Certificate | undefined,
  nowMs: number,
): void {
  if (certificate === undefined) {
    warnings.push(`the authority of ${whose} is missing or damaged: restore it from a backup`);
    return;
  }
  const leftMs = expiryMs(certificate) - nowMs;
  if (leftMs > authorityWarningMs) return;
  const what = leftMs <= 0 ? 'has expired' : `expires in ${Math.floor(leftMs / dayMs)} days`;
  warnings.push(`the authority of ${whose} ${what}: isobar site rotate authority, there`);
}

function warnAboutRenewal(
  warnings: string[],
  kind: string,
  certificate: X509Certificate | undefined,
  nowMs: number,
): void {
  if (certificate === undefined) {
    warnings.push(`the ${kind} certificate is missing or damaged: let a process of the site run`);
    return;
  }
  const leftMs = expiryMs(certificate) - nowMs;
  const lifetimeMs = expiryMs(certificate) - Date.parse(certificate.validFrom);
  if (leftMs <= 0) {
    warnings.push(`the ${kind} certificate has expired: let a process of the site run`);
  } else if (leftMs < lifetimeMs * overdueRatio) {
    warnings.push(`the ${kind} certificate was not renewed: let a process of the site run`);
  }
}

async function modeWarning(path: string): Promise<string[]> {
  try {
    const { mode } = await stat(path);
    if ((mode & 0o777 & ~secretMode) === 0) return [];
    return [`others may read ${path}: chmod 600 it, and rotate it`];
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

async function certificateOf(
  files: SiteFiles,
  stem: PairStem,
): Promise<X509Certificate | undefined> {
  const pem = await readTextIfThere(files.certificate(stem));
  return pem === undefined ? undefined : parsed(pem);
}

function parsed(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

async function newestList(
  path: string,
  authorities: readonly X509Certificate[],
): Promise<RevocationList | undefined> {
  let newest: RevocationList | undefined;
  for (const pem of splitPem((await readTextIfThere(path)) ?? '')) {
    for (const authority of authorities) {
      const list = readRevocationList(pem, authority.toString());
      if (list !== undefined && list.number > (newest?.number ?? -1)) newest = list;
    }
  }
  return newest;
}

function expiryMs(certificate: X509Certificate): number {
  return Date.parse(certificate.validTo);
}

function show(certificate: X509Certificate | undefined): CertificateStatus | null {
  return certificate === undefined ? null : statusOf(certificate);
}

function statusOf(certificate: X509Certificate): CertificateStatus {
  return {
    fingerprint: fingerprintOf(certificate.toString()),
    expiresAt: new Date(certificate.validTo).toISOString(),
  };
}

function showList(list: RevocationList | undefined): RevocationListStatus | null {
  if (list === undefined) return null;
  return {
    issuedAt: new Date(list.thisUpdateMs).toISOString(),
    nextUpdateAt: new Date(list.nextUpdateMs).toISOString(),
    revokedCount: list.serials.size,
  };
}
