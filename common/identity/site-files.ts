import { randomBytes, X509Certificate, createPrivateKey } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { z } from 'zod';

import { loadConfig } from '../config/load-config.ts';
import { makeDirectory } from '../runtime/make-directory.ts';
import { systemErrorCode } from '../runtime/operating-error.ts';
import type { KeyedCertificate } from './certificates.ts';
import { IdentityError } from './identity-error.ts';

/** Names of sites and relations; also MQTT topic levels. */
export const siteNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them');

/** `host:port` that a neighbour dials; IPv6 in brackets. */
export const addressSchema = z
  .string()
  .max(300)
  .refine((text) => parseAddress(text) !== undefined, 'host:port, as in site-a.example:8883');

const neighbourSchema = z.strictObject({
  relation: siteNameSchema.describe(
    'What both sites call their relation; the name of its MQTT subtree.',
  ),
  site: siteNameSchema.describe('Name of the neighbour, as in its certificates.'),
  role: z
    .enum(['producer', 'consumer'])
    .describe('What the neighbour is: frames come from a producer and go to a consumer.'),
  address: addressSchema
    .optional()
    .describe('Where the neighbour listens, host:port, when it does.'),
  trustedAt: z.iso.datetime().describe('When its authority was first pinned; ISO 8601.'),
});

const neighboursMax = 1_000;
const listenAddressesMax = 16;

/** `site.json`: who this site is, and whom it knows. Written by `isobar site`. */
export const siteDocumentSchema = z
  .strictObject({
    apiVersion: z.literal('isobar/v1').describe('Version of this document.'),
    kind: z.literal('Site').describe('What it is.'),
    name: siteNameSchema.describe('Name of this site, in all its certificates.'),
    listen: z
      .array(addressSchema)
      .max(listenAddressesMax)
      .default([])
      .describe('What neighbours dial, host:port; the hosts are in the TLS certificate.'),
    neighbours: z
      .array(neighbourSchema)
      .max(neighboursMax)
      .default([])
      .describe('Sites whose authorities are pinned; written by isobar site trust.'),
  })
  .superRefine(({ neighbours }, context) => {
    const seen = new Set<string>();
    for (const [index, { relation }] of neighbours.entries()) {
      if (seen.has(relation)) {
        const path = ['neighbours', index, 'relation'];
        context.addIssue({ code: 'custom', path, message: 'another neighbour has it already' });
      }
      seen.add(relation);
    }
  });

export type SiteDocument = z.output<typeof siteDocumentSchema>;
export type SiteNeighbour = SiteDocument['neighbours'][number];

/** The parts of `host:port`; undefined for anything else. */
export function parseAddress(
  text: string,
): { readonly host: string; readonly port: number } | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  return port > 65_535 ? undefined : { host: match[1] ?? match[2] ?? '', port };
}

/** A certificate and its key are a pair of files, `<stem>.crt` and `<stem>.key`. */
export type PairStem = 'authority' | 'next-authority' | 'previous-authority' | 'leaf' | 'signing';

/** Where the parts of a site directory are. */
export interface SiteFiles {
  readonly directory: string;
  readonly document: string;
  /** Empty; held by who changes the identity. */
  readonly lock: string;
  /** What earlier versions held instead. */
  readonly formerLock: string;
  readonly revocations: string;
  /** Serials of certificates that have not run out. */
  readonly issued: string;
  readonly revocationList: string;
  readonly neighbours: string;
  certificate(stem: PairStem): string;
  key(stem: PairStem): string;
  /** Pinned authorities of a neighbour, PEM after PEM. */
  pins(relation: string): string;
  /** The newest revocation lists of its authorities, PEM after PEM. */
  neighbourRevocationList(relation: string): string;
}

export function siteFiles(directory: string): SiteFiles {
  const identity = join(directory, 'identity');
  const neighbours = join(identity, 'neighbours');
  return {
    directory,
    document: join(directory, 'site.json'),
    lock: join(identity, 'lock.db'),
    formerLock: join(identity, 'lock'),
    revocations: join(identity, 'revocations.json'),
    issued: join(identity, 'issued.json'),
    revocationList: join(identity, 'crl.pem'),
    neighbours,
    certificate: (stem) => join(identity, `${stem}.crt`),
    key: (stem) => join(identity, `${stem}.key`),
    pins: (relation) => join(neighbours, `${relation}.crt`),
    neighbourRevocationList: (relation) => join(neighbours, `${relation}.crl.pem`),
  };
}

/** @throws IdentityError `site-missing`; ConfigError with every problem of `site.json`. */
export function readSiteDocument(files: SiteFiles): SiteDocument {
  requireSite(files);
  return loadConfig(siteDocumentSchema, files.document);
}

/** @throws IdentityError `site-missing`; `site-unusable` when this user may not look. */
export function requireSite({ document }: SiteFiles): void {
  try {
    accessSync(document, constants.R_OK);
  } catch (cause) {
    if (!absentCodes.has(systemErrorCode(cause) ?? '')) throw unusable(document, cause);
    throw new IdentityError(
      'site-missing',
      `${document} is not there: isobar site init makes a site, --site DIRECTORY names one`,
      { needsSetup: true },
    );
  }
}

const absentCodes = new Set(['ENOENT', 'ENOTDIR']);
/** Others (a full disk, a fault) may pass without anyone changing anything. */
const setupCodes = new Set(['EACCES', 'EISDIR', 'ENOTDIR', 'EPERM', 'EROFS']);

function unusable(path: string, cause: unknown): IdentityError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new IdentityError(
    'site-unusable',
    `${path} can't be used (${reason}): run as the user to whom the site belongs, or choose another directory`,
    { cause, needsSetup: setupCodes.has(systemErrorCode(cause) ?? '') },
  );
}

/** Only its owner may read it. */
export const secretMode = 0o600;
export const publicMode = 0o644;
const secretDirectoryMode = 0o700;

/** Replaces the file in one step and makes it durable: a reader sees the old text or the new one, after a power cut too. */
export async function writeFileAtomically(
  path: string,
  text: string,
  mode: typeof secretMode | typeof publicMode,
): Promise<void> {
  const parent = dirname(path);
  makeDirectory(parent, secretDirectoryMode);
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      // The umask may have taken bits away.
      await file.chmod(mode);
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw unusable(path, error);
  }
  const directory = await open(parent, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

export async function writeSiteDocument(files: SiteFiles, document: SiteDocument): Promise<void> {
  const text = `${JSON.stringify(siteDocumentSchema.parse(document), undefined, 2)}\n`;
  await writeFileAtomically(files.document, text, publicMode);
}

/**
 * The file's text; undefined when there is none.
 * @throws IdentityError `site-unusable`
 */
export async function readTextIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw unusable(path, error);
  }
}

/** The pair; undefined when a file is missing, unreadable as PEM, or the key is not the certificate's. */
export async function readPair(
  files: SiteFiles,
  stem: PairStem,
): Promise<KeyedCertificate | undefined> {
  const cert = await readTextIfThere(files.certificate(stem));
  const key = await readTextIfThere(files.key(stem));
  if (cert === undefined || key === undefined) return undefined;
  return isPair(cert, key) ? { cert, key } : undefined;
}

export function isPair(cert: string, key: string): boolean {
  try {
    return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch {
    // Half of a pair that is being written.
    return false;
  }
}

/** The key first: a crash in between leaves no pair, which renewal repairs. */
export async function writePair(
  files: SiteFiles,
  stem: PairStem,
  pair: KeyedCertificate,
): Promise<void> {
  await writeFileAtomically(files.key(stem), pair.key, secretMode);
  await writeFileAtomically(files.certificate(stem), pair.cert, publicMode);
}

/** The PEM blocks of a text that holds several, in time linear in its length: what has no end hides no other block. */
export function splitPem(text: string): string[] {
  return Array.from(
    text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----[^-]*-----END \1-----/g),
    ([block]) => `${block}\n`,
  );
}
