import { createHash } from 'node:crypto';

import { z } from 'zod';

/*
 * An audit log is files of JSON lines. A line is an entry whose last two members chain it:
 *
 *   {"seq":7,"atUs":...,...,"previous":"<hash of entry 6>","hash":"<SHA-256 of this line up to here>"}\n
 *
 * The hash is of the line's own bytes before `,"hash":`, so that nothing has to be parsed, and no two texts of one entry
 * can exist. Entry 1 has 64 zeros for `previous`.
 */

/** Bytes of one line at most; longer texts of an event are cut. */
export const entryBytesMax = 4_096;
/** What precedes the first entry. */
export const genesisHash = '0'.repeat(64);
const objectCharsMax = 512;

const hashSchema = z.string().regex(/^[0-9a-f]{64}$/, '64 hex digits');
const codeSchema = z.string().regex(/^[\x21-\x7e][\x20-\x7e]{0,127}$/, 'printable ASCII, 1 to 128');

const entrySchema = z.strictObject({
  seq: z.int().positive(),
  /** µs of the epoch, as this site's clock had it. */
  atUs: z.int(),
  /** The neighbour, by its relation; null for the site itself and its operator. */
  relation: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -')
    .nullable(),
  /** Who asked: `in` the neighbour us, `out` we the neighbour, `local` nobody else. */
  direction: z.enum(['in', 'out', 'local']),
  /** `POST /v1/subscriptions`, `audit.pruned`. */
  action: codeSchema,
  /** What it was about. */
  object: z.string().max(objectCharsMax),
  /** `subscribed`, `replayed`. */
  outcome: codeSchema,
  /** SHA-256 of the request's body, hex; null where there is none. */
  requestDigest: hashSchema.nullable(),
  previous: hashSchema,
  hash: hashSchema,
});

/** One entry as it stands in the log. */
export type AuditEntry = z.output<typeof entrySchema>;

/** What happened, before it has a place in the log. */
export type AuditEvent = Omit<AuditEntry, 'seq' | 'atUs' | 'previous' | 'hash'>;

/** Where parts of a site record what they did for and asked of others. */
export interface AuditTrail {
  /**
   * Returns once the entry is in the log's file.
   * @throws AuditError when it can't be written: what is not recorded must not be answered
   */
  append(event: AuditEvent): AuditEntry;
}

/** Seq and hash of the newest entry: who keeps them elsewhere notices when entries are cut off. */
export interface AuditHead {
  readonly seq: number;
  readonly hash: string;
}

/** The head of a log without entries. */
export const genesis: AuditHead = { seq: 0, hash: genesisHash };

const hashMember = ',"hash":"';
/** `,"hash":"<64>"}` */
const suffixChars = hashMember.length + 64 + 2;

/** The next entry and its line, newline included. */
export function encodeEntry(
  event: AuditEvent,
  head: AuditHead,
  atUs: number,
): { readonly entry: AuditEntry; readonly line: Buffer } {
  const { relation, direction, action, object, outcome, requestDigest } = event;
  const entry = entrySchema.parse({
    seq: head.seq + 1,
    atUs,
    relation,
    direction,
    action,
    object: clip(object),
    outcome,
    requestDigest,
    previous: head.hash,
    hash: genesisHash,
  });
  const { hash: _unknown, ...body } = entry;
  const open = JSON.stringify(body).slice(0, -1);
  const hash = sha256(open);
  const line = Buffer.from(`${open}${hashMember}${hash}"}\n`);
  return { entry: { ...body, hash }, line };
}

/** Reads a line (without its newline); a problem says in what way it is not what was written. */
export function decodeEntry(
  line: Buffer,
): { readonly entry: AuditEntry } | { readonly problem: string } {
  if (line.byteLength > entryBytesMax) return { problem: 'the line is too long' };
  const open = line.subarray(0, Math.max(0, line.byteLength - suffixChars));
  const suffix = line.subarray(open.byteLength).toString('latin1');
  const hash = sha256(open);
  // Compared as bytes: the hash covers all before it, and the suffix is exact, so no bit of the line can differ.
  if (suffix !== `${hashMember}${hash}"}`) return { problem: 'the line was altered' };
  let document: unknown;
  try {
    document = JSON.parse(line.toString('utf8'));
  } catch {
    return { problem: 'the line is no JSON' };
  }
  const parsed = entrySchema.safeParse(document);
  return parsed.success ? { entry: parsed.data } : { problem: 'the line is no entry' };
}

function clip(text: string): string {
  return text.length <= objectCharsMax ? text : `${text.slice(0, objectCharsMax - 1)}…`;
}

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}
