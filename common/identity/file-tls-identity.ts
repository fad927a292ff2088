import { createHash, X509Certificate } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';

import type { Cancel, Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Service } from '../runtime/service.ts';
import type { KeyedCertificate } from './certificates.ts';
import { IdentityError } from './identity-error.ts';
import { judgePeer, type PeerVerdict, type Pin, type TrustPolicy } from './pinned-trust.ts';
import { readRevocationList, type RevocationList } from './revocation-list.ts';
import {
  readPair,
  readSiteDocument,
  readTextIfThere,
  siteFiles,
  splitPem,
  type SiteDocument,
  type SiteFiles,
  type SiteNeighbour,
} from './site-files.ts';
import type { CertificateUse, SigningIdentity, TlsIdentity, TlsMaterial } from './tls-identity.ts';

export interface FileTlsIdentityOptions extends TrustPolicy {
  readonly directory: string;
  /** How long a change of the files may go unnoticed. */
  readonly pollIntervalMs: number;
}

const dayMs = 86_400_000;

export const fileTlsIdentityDefaults = {
  pollIntervalMs: 5_000,
  // A leaf renews itself at two thirds of seven days, so a healthy neighbour's is always younger.
  revocationGraceMs: 5 * dayMs,
  liveOverrunMs: 30 * dayMs,
} as const;

/** What was read from the files at one time. */
interface Snapshot {
  readonly fileHash: string;
  readonly document: SiteDocument;
  readonly leaf: KeyedCertificate;
  /** Of signed requests; undefined where it is missing. */
  readonly signing: KeyedCertificate | undefined;
  readonly material: TlsMaterial;
  readonly pins: readonly Pin[];
}

/**
 * The identity of a site directory, watched by polling. A change that can't be read (half written, a key that is not
 * the certificate's) is logged and the last good state stays in force.
 */
export class FileTlsIdentity implements TlsIdentity, SigningIdentity, Service {
  readonly name = 'tls-identity';
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: FileTlsIdentityOptions;
  readonly #files: SiteFiles;
  readonly #listeners = new Set<() => void>();
  #snapshot: Snapshot | undefined;
  #lastFailure = '';
  #reloading: Promise<void> = Promise.resolve();
  #cancelPoll: Cancel = () => {};

  constructor(deps: { readonly clock: Clock; readonly log: Log }, options: FileTlsIdentityOptions) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    this.#files = siteFiles(options.directory);
  }

  /** @throws IdentityError `site-unusable`; ConfigError for `site.json`. */
  async start(): Promise<void> {
    this.#snapshot = await this.#read();
    this.#cancelPoll = this.#clock.every(this.#options.pollIntervalMs, () => {
      void this.reload();
    });
  }

  async stop(): Promise<void> {
    this.#cancelPoll();
    await this.#reloading;
  }

  /** Takes up what changed in the files; listeners have been called when it resolves. Never rejects. */
  reload(): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reloadOnce());
    return this.#reloading;
  }

  /** `site.json` as last read. */
  get document(): SiteDocument {
    return this.#current().document;
  }

  material(): TlsMaterial {
    return this.#current().material;
  }

  signing(): KeyedCertificate | undefined {
    return this.#current().signing;
  }

  relationOf(peerCertificateDer: Uint8Array, use: CertificateUse = 'tls'): string | undefined {
    const verdict = this.judge(peerCertificateDer, use);
    if (verdict.ok) return verdict.relation;
    const { reason, relation } = verdict;
    this.#log.warn('peer-certificate-refused', { reason, use, relation });
    return undefined;
  }

  /** As {@link relationOf}, with the reason of a refusal. */
  judge(peerCertificateDer: Uint8Array, use: CertificateUse): PeerVerdict {
    const nowMs = this.#clock.wallUs() / 1_000;
    return judgePeer(this.#current().pins, peerCertificateDer, use, nowMs, this.#options);
  }

  onChange(listener: () => void): Cancel {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #current(): Snapshot {
    if (this.#snapshot === undefined) {
      throw new IdentityError('site-unusable', 'the identity of the site has not been started');
    }
    return this.#snapshot;
  }

  async #reloadOnce(): Promise<void> {
    try {
      const before = this.#snapshot;
      const snapshot = await this.#read();
      this.#lastFailure = '';
      if (snapshot === before) return;
      this.#snapshot = snapshot;
      this.#log.info('identity-changed', { pinCount: snapshot.pins.length });
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      if (cause !== this.#lastFailure) this.#log.error('identity-reload-failed', { cause });
      this.#lastFailure = cause;
      return;
    }
    for (const listener of this.#listeners) listener();
  }

  /** The present snapshot when no file differs from it. */
  async #read(): Promise<Snapshot> {
    const files = this.#files;
    const document = readSiteDocument(files);
    // While a renewal is half written, or a person broke the files, the last one goes on; changes of trust never wait.
    const leaf = (await readPair(files, 'leaf')) ?? this.#snapshot?.leaf;
    if (leaf === undefined) {
      const path = files.certificate('leaf');
      throw new IdentityError(
        'site-unusable',
        `${path} and its key are missing or do not belong together: isobar site rotate leaf makes new ones`,
      );
    }
    const signing = (await readPair(files, 'signing')) ?? this.#snapshot?.signing;
    const neighbours = await Promise.all(
      document.neighbours.map(async (neighbour) => ({
        neighbour,
        pins: (await readTextIfThere(files.pins(neighbour.relation))) ?? '',
        lists: await readTextIfThere(files.neighbourRevocationList(neighbour.relation)),
      })),
    );
    const fileHash = createHash('sha256')
      .update(JSON.stringify([document, leaf, signing, neighbours]))
      .digest('hex');
    if (this.#snapshot?.fileHash === fileHash) return this.#snapshot;
    const read = neighbours.map(({ neighbour, pins, lists }) => {
      try {
        return readPins(neighbour, pins, lists, this.#snapshot?.pins ?? []);
      } catch (error) {
        const cause = error instanceof Error ? error.message : String(error);
        this.#log.error('neighbour-pins-unreadable', { relation: neighbour.relation, cause });
        return [];
      }
    });
    const pins = read.flat();
    return { fileHash, document, leaf, signing, pins, material: this.#materialOf(leaf, pins) };
  }

  /** The same object while its content is the same, so that servers need not swap their context for a revocation. */
  #materialOf(leaf: KeyedCertificate, pins: readonly Pin[]): TlsMaterial {
    const material = {
      ...leaf,
      ca: pins.map(({ authority }) => authority.toString()),
      crl: [],
    };
    const before = this.#snapshot?.material;
    return before !== undefined && isDeepStrictEqual(before, material) ? before : material;
  }
}

/** @throws Error for a pin that is no certificate; that neighbour is then trusted no longer. */
function readPins(
  { relation, site }: SiteNeighbour,
  pinsText: string,
  listsText: string | undefined,
  before: readonly Pin[],
): Pin[] {
  const lists = listsText === undefined ? undefined : splitPem(listsText);
  const pins = splitPem(pinsText).map((pem): Pin => {
    const authority = new X509Certificate(pem);
    const known = before.find((pin) => pin.authority.fingerprint256 === authority.fingerprint256);
    const newest = newestList(lists ?? [], pem, known?.revocations);
    return { relation, siteName: site, authority, revocations: newest };
  });
  const hasNone = pins.every(({ revocations }) => revocations === undefined);
  if (lists === undefined || !hasNone) return pins;
  return pins.map((pin) => ({ ...pin, revocations: 'unreadable' }));
}

/** A list is never replaced by an older one: that would bring a revoked certificate back. */
function newestList(
  lists: readonly string[],
  authorityPem: string,
  known: Pin['revocations'],
): RevocationList | undefined {
  let newest = known === 'unreadable' ? undefined : known;
  for (const pem of lists) {
    const list = readRevocationList(pem, authorityPem);
    if (list !== undefined && list.number > (newest?.number ?? -1)) newest = list;
  }
  return newest;
}
