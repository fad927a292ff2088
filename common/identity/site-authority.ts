import { X509Certificate } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { isIP } from 'node:net';

import type { Clock } from '../runtime/clock.ts';
import type * as CertificateMaker from './certificate-maker.ts';
import type { KeyedCertificate, Validity } from './certificates.ts';
import { fingerprintOf } from './fingerprint.ts';
import { IdentityError } from './identity-error.ts';
import { normalSerial, readRevocationList, type RevocationList } from './revocation-list.ts';
import {
  issuedEntryOf,
  RevocationRecords,
  type IssuedEntry,
  type RevocationEntry,
} from './revocation-records.ts';
import {
  parseAddress,
  publicMode,
  readPair,
  readSiteDocument,
  readTextIfThere,
  siteFiles,
  splitPem,
  writeFileAtomically,
  writePair,
  writeSiteDocument,
  type SiteDocument,
  type SiteFiles,
} from './site-files.ts';
import { withSiteLock } from './site-lock.ts';

export interface Lifetimes {
  readonly authorityMs: number;
  readonly leafMs: number;
  readonly signingMs: number;
  /** From a revocation list's issue to its nextUpdate; a new one is issued after half of it. */
  readonly revocationListMs: number;
  /** Certificates begin this long before they are issued, for neighbours whose clocks are behind. */
  readonly backdateMs: number;
}

const dayMs = 86_400_000;

export const defaultLifetimes: Lifetimes = {
  authorityMs: 10 * 365 * dayMs,
  leafMs: 7 * dayMs,
  signingMs: 7 * dayMs,
  revocationListMs: dayMs,
  backdateMs: 5 * 60_000,
};

/** Of a site's certificates, which one: for TLS, or for signatures. */
export type LeafKind = 'leaf' | 'signing';

export type Renewed = 'leaf' | 'signing' | 'revocation-list';

/**
 * Makes and renews what a site has of its own. Every change is made under the site's lock and replaces whole files, so
 * that processes which watch the directory see each state or the next.
 *
 *   authority --issues--> leaf (TLS), signing certificate, revocation list
 *   rotation:  authority --prepare--> authority + next-authority --activate--> previous-authority + authority
 */
export class SiteAuthority {
  readonly #clock: Clock;
  readonly #files: SiteFiles;
  readonly #records: RevocationRecords;
  readonly #lifetimes: Lifetimes;

  constructor(
    deps: { readonly clock: Clock },
    directory: string,
    lifetimes: Lifetimes = defaultLifetimes,
  ) {
    this.#clock = deps.clock;
    this.#files = siteFiles(directory);
    this.#records = new RevocationRecords(this.#files);
    this.#lifetimes = lifetimes;
  }

  /** @throws IdentityError `site-exists`: an authority is never overwritten. */
  async init(document: SiteDocument): Promise<void> {
    const files = this.#files;
    for (const path of [files.document, files.key('authority'), files.certificate('authority')]) {
      if ((await readTextIfThere(path)) === undefined) continue;
      throw new IdentityError(
        'site-exists',
        `${path} exists: choose another directory, or remove the site that is there`,
      );
    }
    const validity = this.#validity(this.#lifetimes.authorityMs);
    const { createAuthority } = await maker();
    await writePair(files, 'authority', await createAuthority(document.name, validity));
    await writeSiteDocument(files, document);
    await this.renewWhatIsDue();
  }

  /**
   * Renews the certificates of which two thirds of the lifetime are over, that are missing, or whose issuer or names
   * have changed; and the revocation list after half of its time or when revocations are not in it yet.
   * @throws IdentityError `site-unusable` without an authority.
   */
  renewWhatIsDue(): Promise<readonly Renewed[]> {
    return withSiteLock(this.#clock, this.#files, () => this.#renewWhatIsDue());
  }

  /** A new certificate with a new key at once; connections under the old one go on, and what it signed stays good. */
  rotate(kind: LeafKind): Promise<void> {
    return withSiteLock(this.#clock, this.#files, async () => {
      await this.#issue(kind, await this.#authority(), readSiteDocument(this.#files));
    });
  }

  /**
   * Puts the present certificate (its key leaked, say) on the revocation list and makes a new one.
   * @returns the serial that was revoked.
   * @throws IdentityError `site-unusable` when there is none; `revocations-full`
   */
  revoke(kind: LeafKind): Promise<string> {
    return withSiteLock(this.#clock, this.#files, async () => {
      const entry = await this.#presentEntry(kind);
      if (entry === undefined) {
        throw new IdentityError('site-unusable', `there is no ${kind} certificate of this site`);
      }
      return this.#revoke(entry);
    });
  }

  /**
   * As {@link revoke}, for a certificate that may have been replaced already.
   * @param serial hexadecimal
   * @throws IdentityError `certificate-unknown` when it has run out, or was never issued here; `revocations-full`
   */
  revokeSerial(serial: string): Promise<string> {
    return withSiteLock(this.#clock, this.#files, async () => {
      const present = [await this.#presentEntry('leaf'), await this.#presentEntry('signing')];
      const entry =
        present.find((each) => each?.serial === normalSerial(serial)) ??
        (await this.#records.issuedAs(serial, this.#nowMs()));
      if (entry !== undefined) return this.#revoke(entry);
      throw new IdentityError(
        'certificate-unknown',
        `no certificate ${serial} of this site is good: it has run out, or another site issued it; ${this.#files.issued} has those there are`,
      );
    });
  }

  /** Makes the authority that will take over, for neighbours to pin beside the present one. Repeating it changes nothing. */
  prepareAuthority(): Promise<void> {
    return withSiteLock(this.#clock, this.#files, async () => {
      const { name } = readSiteDocument(this.#files);
      if ((await this.#nextAuthority()) === undefined) {
        const { createAuthority } = await maker();
        const next = await createAuthority(name, this.#validity(this.#lifetimes.authorityMs));
        await writePair(this.#files, 'next-authority', next);
      }
      await this.#renewWhatIsDue();
    });
  }

  /**
   * The prepared authority takes over and issues new certificates; to be done when all neighbours have pinned it. The
   * old one is kept for its revocation list.
   * @throws IdentityError `rotation-refused` when none is prepared.
   */
  activateAuthority(): Promise<void> {
    return withSiteLock(this.#clock, this.#files, async () => {
      const files = this.#files;
      const next = await this.#nextAuthority();
      if (next === undefined) {
        throw new IdentityError(
          'rotation-refused',
          'no next authority is prepared: isobar site rotate authority makes one, for neighbours to pin first',
        );
      }
      await writePair(files, 'previous-authority', await this.#authority());
      await writePair(files, 'authority', next);
      await rm(files.key('next-authority'), { force: true });
      await rm(files.certificate('next-authority'), { force: true });
      await this.#renewWhatIsDue();
    });
  }

  async #renewWhatIsDue(): Promise<readonly Renewed[]> {
    const document = readSiteDocument(this.#files);
    const authority = await this.#authority();
    const renewed: Renewed[] = [];
    for (const stem of ['leaf', 'signing'] as const) {
      if (!(await this.#isDue(stem, authority, document))) continue;
      await this.#issue(stem, authority, document);
      renewed.push(stem);
    }
    if (await this.#renewRevocationLists()) renewed.push('revocation-list');
    return renewed;
  }

  async #isDue(
    stem: LeafKind,
    authority: KeyedCertificate,
    { listen }: SiteDocument,
  ): Promise<boolean> {
    const pair = await readPair(this.#files, stem);
    if (pair === undefined) return true;
    const certificate = new X509Certificate(pair.cert);
    const lifetimeMs = stem === 'leaf' ? this.#lifetimes.leafMs : this.#lifetimes.signingMs;
    // By its begin as well: one that was issued for longer than certificates are now.
    const dueMs = Math.min(
      Date.parse(certificate.validTo) - lifetimeMs / 3,
      Date.parse(certificate.validFrom) + this.#lifetimes.backdateMs + (lifetimeMs * 2) / 3,
    );
    if (this.#nowMs() >= dueMs) return true;
    // A clock that was ahead when it was issued.
    if (this.#nowMs() < Date.parse(certificate.validFrom)) return true;
    if (!certificate.verify(new X509Certificate(authority.cert).publicKey)) return true;
    if (stem === 'signing') return false;
    const names = (host: string): string | undefined =>
      isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host);
    return hostsOf(listen).some((host) => names(host) === undefined);
  }

  async #issue(
    stem: LeafKind,
    authority: KeyedCertificate,
    { name, listen }: SiteDocument,
  ): Promise<void> {
    const { leafMs, signingMs } = this.#lifetimes;
    const { issueLeaf, issueSigningCertificate } = await maker();
    const pair =
      stem === 'leaf'
        ? await issueLeaf(
            authority,
            { siteName: name, hosts: hostsOf(listen) },
            this.#validity(leafMs),
          )
        : await issueSigningCertificate(authority, name, this.#validity(signingMs));
    await this.#records.noteIssued(stem, pair.cert, authority.cert, this.#nowMs());
    await writePair(this.#files, stem, pair);
  }

  /** One list for each authority that may have issued a certificate still in use. */
  async #renewRevocationLists(): Promise<boolean> {
    const nowMs = this.#nowMs();
    const lists = splitPem((await readTextIfThere(this.#files.revocationList)) ?? '');
    const all = await this.#records.revocations(nowMs);
    const authorities = await this.#authorities();
    const texts: string[] = [];
    let isAnyNew = lists.length !== authorities.length;
    for (const authority of authorities) {
      const fingerprint = fingerprintOf(authority.cert);
      const mine = all.filter((entry) => entry.authority === fingerprint);
      const present = listOf(lists, authority);
      const isDue =
        present === undefined ||
        nowMs >= present.list.nextUpdateMs - this.#lifetimes.revocationListMs / 2 ||
        nowMs < present.list.thisUpdateMs ||
        !mine.every(({ serial }) => present.list.serials.has(serial));
      isAnyNew ||= isDue;
      texts.push(isDue ? await this.#newList(authority, mine, present?.list.number) : present.pem);
    }
    if (!isAnyNew) return false;
    await writeFileAtomically(this.#files.revocationList, texts.join(''), publicMode);
    return true;
  }

  async #newList(
    authority: KeyedCertificate,
    entries: readonly RevocationEntry[],
    numberBefore: number | undefined,
  ): Promise<string> {
    const nowMs = this.#nowMs();
    const { createRevocationList } = await maker();
    return createRevocationList(authority, {
      // Seconds, so that a list whose predecessor was lost is still newer than it.
      number: Math.max(Math.floor(nowMs / 1_000), (numberBefore ?? 0) + 1),
      thisUpdateMs: nowMs,
      nextUpdateMs: nowMs + this.#lifetimes.revocationListMs,
      revocations: entries.map(({ serial, revokedAt }) => ({
        serial,
        revokedAtMs: Date.parse(revokedAt),
      })),
    });
  }

  async #revoke(entry: IssuedEntry): Promise<string> {
    const present = await this.#presentEntry(entry.kind);
    // The record first: a crash behind it leaves a list that renewal completes.
    await this.#records.revoke(entry, this.#nowMs());
    if (present?.serial === entry.serial) {
      await this.#issue(entry.kind, await this.#authority(), readSiteDocument(this.#files));
    }
    await this.#renewWhatIsDue();
    return entry.serial;
  }

  /** Of the certificate in use, whether it is remembered or not: earlier versions did not. */
  async #presentEntry(kind: LeafKind): Promise<IssuedEntry | undefined> {
    const cert = await readTextIfThere(this.#files.certificate(kind));
    if (cert === undefined) return undefined;
    const certificate = new X509Certificate(cert);
    const issuer = (await this.#authorities()).find((each) =>
      certificate.verify(new X509Certificate(each.cert).publicKey),
    );
    return issuer === undefined ? undefined : issuedEntryOf(kind, cert, issuer.cert);
  }

  /** Current, next and previous, as far as there are such. */
  async #authorities(): Promise<readonly KeyedCertificate[]> {
    const others = [await this.#nextAuthority(), await readPair(this.#files, 'previous-authority')];
    return [await this.#authority(), ...others.filter((pair) => pair !== undefined)];
  }

  /** One that a crash left behind after its activation is none. */
  async #nextAuthority(): Promise<KeyedCertificate | undefined> {
    const next = await readPair(this.#files, 'next-authority');
    return next?.key === (await this.#authority()).key ? undefined : next;
  }

  async #authority(): Promise<KeyedCertificate> {
    const pair = (await readPair(this.#files, 'authority')) ?? (await this.#repairAuthority());
    if (pair !== undefined) return pair;
    throw new IdentityError(
      'site-unusable',
      `the site's authority (${this.#files.certificate('authority')} and its key) is missing or damaged: restore it`,
    );
  }

  /** Ends an activation that a crash cut off between key and certificate. */
  async #repairAuthority(): Promise<KeyedCertificate | undefined> {
    const files = this.#files;
    const key = await readTextIfThere(files.key('authority'));
    const next = await readPair(files, 'next-authority');
    if (next === undefined || next.key !== key) return undefined;
    await writePair(files, 'authority', next);
    return next;
  }

  #validity(lifetimeMs: number): Validity {
    const nowMs = this.#nowMs();
    return {
      notBeforeMs: nowMs - this.#lifetimes.backdateMs,
      notAfterMs: nowMs + lifetimeMs,
    };
  }

  #nowMs(): number {
    return Math.floor(this.#clock.wallUs() / 1_000);
  }
}

function hostsOf(listen: readonly string[]): string[] {
  const hosts = listen.map((address) => parseAddress(address)?.host ?? '');
  return [...new Set(hosts)].filter((host) => host !== '');
}

/** Its libraries take a third of a second and 22 MiB, and a process that renews nothing needs none of them. */
function maker(): Promise<typeof CertificateMaker> {
  return import('./certificate-maker.ts');
}

function listOf(
  lists: readonly string[],
  authority: KeyedCertificate,
): { pem: string; list: RevocationList } | undefined {
  for (const pem of lists) {
    const list = readRevocationList(pem, authority.cert);
    if (list !== undefined) return { pem, list };
  }
  return undefined;
}
