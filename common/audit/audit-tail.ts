import { closeSync, openSync, readSync, statSync } from 'node:fs';

import { entryBytesMax, type AuditEntry, type AuditHead } from './audit-entry.ts';
import { readAuditFile, type AuditFile } from './audit-files.ts';

/** What a file ends with. */
export interface Tail {
  /** Undefined when its first line is no entry. */
  readonly head: AuditHead | undefined;
  /** After the last whole line. */
  readonly endBytes: number;
  readonly sizeBytes: number;
  /** Of the line after it. */
  readonly problem: string | undefined;
  /** Of its entries and of the one before, by seq. */
  readonly hashes: ReadonlyMap<number, string>;
}

/** Reads a file up to the first line that is no entry, or not the next one. */
export async function readTail(file: AuditFile): Promise<Tail> {
  const sizeBytes = statSync(file.path).size;
  const hashes = new Map<number, string>();
  let head: AuditHead | undefined;
  for await (const line of readAuditFile(file.path)) {
    const problem = 'problem' in line ? line.problem : linkProblem(line.entry, head, file);
    if (problem !== undefined || 'problem' in line) {
      return { head, endBytes: line.offsetBytes, sizeBytes, problem, hashes };
    }
    const { seq, previous, hash } = line.entry;
    if (head === undefined) hashes.set(seq - 1, previous);
    head = { seq, hash };
    hashes.set(seq, hash);
  }
  return { head, endBytes: sizeBytes, sizeBytes, problem: undefined, hashes };
}

function linkProblem(
  entry: AuditEntry,
  head: AuditHead | undefined,
  file: AuditFile,
): string | undefined {
  const follows =
    head === undefined
      ? entry.seq === file.firstSeq
      : entry.seq === head.seq + 1 && entry.previous === head.hash;
  return follows ? undefined : `entry ${entry.seq} does not follow the one before`;
}

/** The `previous` of a file's first entry. */
export function previousOf(file: AuditFile): string {
  const bytes = Buffer.alloc(entryBytesMax);
  const descriptor = openSync(file.path, 'r');
  try {
    const byteCount = readSync(descriptor, bytes, 0, entryBytesMax, 0);
    const text = bytes.toString('latin1', 0, byteCount);
    const [, previous = ''] = /^[^\n]*"previous":"([0-9a-f]{64})"/.exec(text) ?? [];
    return previous;
  } finally {
    closeSync(descriptor);
  }
}
