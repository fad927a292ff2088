import { createReadStream, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { OperatingError, systemErrorCode } from '../runtime/operating-error.ts';
import { decodeEntry, entryBytesMax, type AuditEntry, type AuditHead } from './audit-entry.ts';

export type AuditErrorCode =
  /** The directory or a file of it can't be read or written. */
  | 'audit-unusable'
  /** Another process writes the log: two writers would break the chain. */
  | 'audit-taken';

/** An audit log that can't be used; the message says what to do. */
export class AuditError extends OperatingError<AuditErrorCode> {
  override readonly name = 'AuditError';
}

/** One file of a log; its name has the seq of its first entry, so that names sort as entries do. */
export interface AuditFile {
  readonly name: string;
  readonly path: string;
  readonly firstSeq: number;
}

const nameShape = /^audit-(\d{15})\.jsonl$/;
const anchorName = 'audit-head.json';
const anchorSchema = z.strictObject({
  seq: z.int().min(0),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
});

/** The file that begins with entry `firstSeq`. */
export function auditFileOf(directory: string, firstSeq: number): AuditFile {
  const name = `audit-${String(firstSeq).padStart(15, '0')}.jsonl`;
  return { name, path: join(directory, name), firstSeq };
}

/**
 * The files of a log, the oldest first.
 * @throws AuditError `audit-unusable`
 */
export function listAuditFiles(directory: string): AuditFile[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (cause) {
    if (systemErrorCode(cause) !== 'ENOENT') throw unusable(directory, cause);
    throw new AuditError(
      'audit-unusable',
      `there is no audit log in ${directory}: name the one that is meant with --directory or --data-dir`,
      { cause },
    );
  }
  return names
    .flatMap((name) => {
      const [, firstSeq] = nameShape.exec(name) ?? [];
      return firstSeq === undefined ? [] : [auditFileOf(directory, Number(firstSeq))];
    })
    .toSorted((left, right) => left.firstSeq - right.firstSeq);
}

/** Where the head of a log is noted apart from its files. */
export function anchorPathOf(directory: string): string {
  return join(directory, anchorName);
}

/** The noted head; `missing` or `damaged` when there is none to go by. */
export function readAnchor(directory: string): AuditHead | 'missing' | 'damaged' {
  let text: string;
  try {
    text = readFileSync(anchorPathOf(directory), 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return 'missing';
    throw unusable(directory, error);
  }
  try {
    return anchorSchema.parse(JSON.parse(text));
  } catch {
    return 'damaged';
  }
}

/** One line of a file: an entry, or what is wrong with it. */
export type AuditLine = {
  /** From 1. */
  readonly lineNumber: number;
  /** Offset of its first byte. */
  readonly offsetBytes: number;
} & ({ readonly entry: AuditEntry } | { readonly problem: string; readonly isTorn: boolean });

/** Reads a file line by line in bounded memory. A line without an end is torn: being written, or cut off by a crash. */
export async function* readAuditFile(path: string): AsyncGenerator<AuditLine, void> {
  let rest: Buffer = Buffer.alloc(0);
  let offsetBytes = 0;
  let lineNumber = 1;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let bytes = rest.byteLength === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a)) {
      yield { lineNumber, offsetBytes, ...withTear(decodeEntry(bytes.subarray(0, end)), false) };
      bytes = bytes.subarray(end + 1);
      offsetBytes += end + 1;
      lineNumber += 1;
    }
    rest = bytes;
    if (rest.byteLength > entryBytesMax) {
      yield { lineNumber, offsetBytes, problem: 'the line is too long', isTorn: false };
      return;
    }
  }
  if (rest.byteLength > 0) {
    yield { lineNumber, offsetBytes, problem: 'the line has no end', isTorn: true };
  }
}

function withTear(
  decoded: ReturnType<typeof decodeEntry>,
  isTorn: boolean,
): { readonly entry: AuditEntry } | { readonly problem: string; readonly isTorn: boolean } {
  return 'entry' in decoded ? decoded : { ...decoded, isTorn };
}

/** The error for a directory or file that the system refuses. */
export function unusable(path: string, cause: unknown): AuditError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const isFull = systemErrorCode(cause) === 'ENOSPC';
  return new AuditError(
    'audit-unusable',
    `the audit log in ${path} can't be used: ${reason}${isFull ? '; make room on that disk' : ''}`,
    { cause, retryable: true },
  );
}
