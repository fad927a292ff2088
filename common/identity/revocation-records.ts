import { X509Certificate } from 'node:crypto';

import { z } from 'zod';

import { fingerprintOf } from './fingerprint.ts';
import { IdentityError } from './identity-error.ts';
import { normalSerial } from './revocation-list.ts';
import { publicMode, readTextIfThere, writeFileAtomically, type SiteFiles } from './site-files.ts';

const revocationSchema = z.strictObject({
  authority: z.string(),
  serial: z.string(),
  revokedAt: z.iso.datetime(),
  /** A list need not name what has run out by itself. */
  expiresAt: z.iso.datetime(),
});
const revocationsSchema = z.strictObject({ revocations: z.array(revocationSchema) });

/** A certificate that its authority has withdrawn; `authority` is the fingerprint of the issuer. */
export type RevocationEntry = z.output<typeof revocationSchema>;

const issuedSchema = revocationSchema
  .omit({ revokedAt: true })
  .extend({ kind: z.enum(['leaf', 'signing']) });
const issuedListSchema = z.strictObject({ issued: z.array(issuedSchema) });

/** A certificate that an authority of this site issued. */
export type IssuedEntry = z.output<typeof issuedSchema>;

/** Revoked certificates that have not run out: so many fit into a list. They run out within a week. */
const revocationsMax = 900;
/** Issued certificates that are remembered; beyond, those that run out first are forgotten. */
const issuedMax = 4_096;

/** What the authorities of a site issued and revoked, until it runs out. To be used under the site's lock. */
export class RevocationRecords {
  readonly #files: SiteFiles;

  constructor(files: SiteFiles) {
    this.#files = files;
  }

  /** Those that have not run out. @throws IdentityError `site-unusable` */
  async revocations(nowMs: number): Promise<readonly RevocationEntry[]> {
    const path = this.#files.revocations;
    const text = await readTextIfThere(path);
    if (text === undefined) return [];
    try {
      const { revocations } = revocationsSchema.parse(JSON.parse(text));
      return revocations.filter((entry) => isGood(entry, nowMs));
    } catch (cause) {
      const message = `${path} is damaged: restore it, or no revocation is known`;
      throw new IdentityError('site-unusable', message, { cause });
    }
  }

  /**
   * Remembers that the certificate is revoked; again changes nothing.
   * @throws IdentityError `revocations-full`
   */
  async revoke({ authority, serial, expiresAt }: IssuedEntry, nowMs: number): Promise<void> {
    const before = await this.revocations(nowMs);
    if (before.some((each) => each.authority === authority && each.serial === serial)) return;
    if (before.length >= revocationsMax) {
      throw new IdentityError(
        'revocations-full',
        `${revocationsMax} certificates that have not run out are revoked, and a list holds no more: rotate the authority instead, by isobar site rotate authority`,
      );
    }
    const revokedAt = new Date(nowMs).toISOString();
    const revocations = [...before, { authority, serial, revokedAt, expiresAt }];
    await write(this.#files.revocations, { revocations });
  }

  /** To be remembered before the certificate is used, so that there is none whose serial nobody knows. */
  async noteIssued(
    kind: IssuedEntry['kind'],
    certificate: string,
    authority: string,
    nowMs: number,
  ): Promise<void> {
    const entry = issuedEntryOf(kind, certificate, authority);
    const issued = [...(await this.#issued(nowMs)), entry]
      .toSorted((left, right) => Date.parse(right.expiresAt) - Date.parse(left.expiresAt))
      .slice(0, issuedMax);
    await write(this.#files.issued, { issued });
  }

  /** The certificate of that serial, in any case and with or without leading zeros, while it has not run out. */
  async issuedAs(serial: string, nowMs: number): Promise<IssuedEntry | undefined> {
    const sought = normalSerial(serial);
    return (await this.#issued(nowMs)).find((entry) => entry.serial === sought);
  }

  async #issued(nowMs: number): Promise<readonly IssuedEntry[]> {
    const text = (await readTextIfThere(this.#files.issued)) ?? '';
    return parseIssued(text).filter((entry) => isGood(entry, nowMs));
  }
}

/** What is remembered of a certificate, PEM, that the authority, PEM, issued. */
export function issuedEntryOf(
  kind: IssuedEntry['kind'],
  certificate: string,
  authority: string,
): IssuedEntry {
  const { serialNumber, validTo } = new X509Certificate(certificate);
  return {
    kind,
    authority: fingerprintOf(authority),
    serial: normalSerial(serialNumber),
    expiresAt: new Date(validTo).toISOString(),
  };
}

function isGood({ expiresAt }: { readonly expiresAt: string }, nowMs: number): boolean {
  return Date.parse(expiresAt) > nowMs;
}

/** A damaged file keeps nobody from renewing: what it knew can't be revoked by its serial any more, and ends in a week. */
function parseIssued(text: string): readonly IssuedEntry[] {
  try {
    return issuedListSchema.parse(JSON.parse(text)).issued;
  } catch {
    return [];
  }
}

async function write(path: string, document: object): Promise<void> {
  await writeFileAtomically(path, `${JSON.stringify(document, undefined, 2)}\n`, publicMode);
}
