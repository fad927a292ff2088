import { existsSync } from 'node:fs';

import { genesis, genesisHash, type AuditEntry, type AuditHead } from './audit-entry.ts';
import { listAuditFiles, readAnchor, readAuditFile } from './audit-files.ts';

/** The first place where a log is not what was written. */
export interface AuditFinding {
  /** Name of the file; null where one is missing altogether. */
  readonly file: string | null;
  readonly lineNumber: number | null;
  readonly offsetBytes: number | null;
  /** The entry that is wrong or missing, as far as it can be told. */
  readonly seq: number;
  readonly problem: string;
}

/** What a look at a whole log comes to. */
export interface AuditVerdict {
  readonly entryCount: number;
  readonly fileCount: number;
  /** Newest entry whose chain is whole; what to keep elsewhere. */
  readonly head: AuditHead;
  /** Undefined: the log is whole. */
  readonly finding: AuditFinding | undefined;
  /** Bytes after the newest line that have no end: being written, or torn by a crash, set aside at the next start. */
  readonly tornLine: { readonly file: string; readonly lineNumber: number } | undefined;
  /** What the log says of itself: lines set aside, a chain that was broken at a start. The newest {@link notesMax}. */
  readonly notes: readonly AuditEntry[];
}

const notesMax = 100;

/** How a log says that its oldest entries were removed, on purpose and by its own bound. */
export const prunedAction = 'audit.pruned';
/** The first entry of every log: when that is later than the site began, there was another log before. */
export const begunAction = 'audit.begun';

/**
 * Reads all of a log and checks that each entry is whole and follows the one before, over all files, up to the noted head
 * and, where given, to a head that was kept elsewhere. A log without an entry is a finding: each begins with one. Reading while the log is being written is harmless.
 * @throws AuditError `audit-unusable`
 */
export async function verifyAudit(directory: string, expected?: AuditHead): Promise<AuditVerdict> {
  // First the note, then the files: these are never behind it.
  const anchor = readAnchor(directory);
  const walk = await new ChainWalk(expected, anchor).follow(directory);
  return {
    entryCount: walk.entryCount,
    fileCount: walk.fileCount,
    head: walk.head,
    finding: walk.finding ?? walk.endFinding(),
    tornLine: walk.tornLine,
    notes: walk.notes,
  };
}

class ChainWalk {
  entryCount = 0;
  fileCount = 0;
  head: AuditHead = genesis;
  finding: AuditFinding | undefined;
  tornLine: AuditVerdict['tornLine'];
  readonly notes: AuditEntry[] = [];
  /** Where the log begins when that is not entry 1; an entry must say so. */
  #begin:
    | { readonly file: string; readonly throughSeq: number; readonly previous: string }
    | undefined;
  #isBeginExplained = false;
  readonly #known: readonly { readonly head: AuditHead; readonly name: string }[];
  readonly #anchor: ReturnType<typeof readAnchor>;

  constructor(expected: AuditHead | undefined, anchor: ReturnType<typeof readAnchor>) {
    this.#anchor = anchor;
    this.#known = [
      ...(expected === undefined ? [] : [{ head: expected, name: 'the expected head' }]),
      ...(typeof anchor === 'string' ? [] : [{ head: anchor, name: 'the noted head' }]),
    ];
  }

  async follow(directory: string): Promise<this> {
    const files = existsSync(directory) ? listAuditFiles(directory) : [];
    this.fileCount = files.length;
    for (const [index, file] of files.entries()) {
      let isFirst = true;
      for await (const line of readAuditFile(file.path)) {
        const { lineNumber, offsetBytes } = line;
        const place = { file: file.name, lineNumber, offsetBytes };
        if ('problem' in line) {
          if (line.isTorn && index === files.length - 1) {
            this.tornLine = { file: file.name, lineNumber };
            return this;
          }
          this.finding = { ...place, seq: this.head.seq + 1, problem: line.problem };
          return this;
        }
        const problem = this.#take(line.entry, isFirst ? file.firstSeq : undefined, file.name);
        isFirst = false;
        if (problem === undefined) continue;
        this.finding = { ...place, seq: this.head.seq + 1, problem };
        return this;
      }
    }
    return this;
  }

  /** What only the end of the log shows. */
  endFinding(): AuditFinding | undefined {
    const seq = this.head.seq + 1;
    const nowhere = { file: null, lineNumber: null, offsetBytes: null };
    for (const { head, name } of this.#known) {
      if (head.seq <= this.head.seq) continue;
      const problem = `entries ${seq} to ${head.seq} are missing: ${name} is entry ${head.seq}`;
      return { ...nowhere, seq, problem };
    }
    if (this.#begin !== undefined && !this.#isBeginExplained) {
      const problem = `entries 1 to ${this.#begin.throughSeq} are missing, and no later entry says that they were pruned`;
      return { file: this.#begin.file, lineNumber: 1, offsetBytes: 0, seq: 1, problem };
    }
    if (this.entryCount === 0 && this.#anchor === 'missing') {
      const problem =
        'there is no entry: the log was removed, or is in another directory: name that with --directory or --data-dir';
      return { ...nowhere, seq, problem };
    }
    if (typeof this.#anchor !== 'string') return undefined;
    const problem = `the noted head is ${this.#anchor}: whether entries are missing at the end can't be told`;
    return { ...nowhere, file: 'audit-head.json', seq, problem };
  }

  /** The problem of an entry at its place in the chain. */
  #take(entry: AuditEntry, firstSeq: number | undefined, file: string): string | undefined {
    const { seq, previous, hash } = entry;
    if (firstSeq !== undefined && seq !== firstSeq) {
      return `the file begins with entry ${seq}, and is named for ${firstSeq}`;
    }
    if (this.entryCount === 0 && seq > 1) {
      this.#begin = { file, throughSeq: seq - 1, previous };
    } else if (seq !== this.head.seq + 1) {
      return seq > this.head.seq
        ? `entries ${this.head.seq + 1} to ${seq - 1} are missing`
        : `entry ${seq} stands where ${this.head.seq + 1} belongs`;
    } else if (previous !== (this.entryCount === 0 ? genesisHash : this.head.hash)) {
      return `entry ${seq} does not follow the entry ${this.head.seq} that is here`;
    }
    for (const { head, name } of this.#known) {
      if (head.seq === seq && head.hash !== hash) return `entry ${seq} is not the one of ${name}`;
    }
    if (entry.direction === 'local') this.#noteLocal(entry);
    this.entryCount += 1;
    this.head = { seq, hash };
    return undefined;
  }

  #noteLocal(entry: AuditEntry): void {
    if (entry.action !== prunedAction) {
      if (!entry.action.startsWith('audit.')) return;
      this.notes.push(entry);
      if (this.notes.length > notesMax) this.notes.shift();
      return;
    }
    // The object of a pruning entry is `THROUGH_SEQ HASH`.
    const begin = this.#begin;
    if (begin === undefined) return;
    if (entry.object === `${begin.throughSeq} ${begin.previous}`) this.#isBeginExplained = true;
  }
}
