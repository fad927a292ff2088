import assert from 'node:assert';
import { createHash } from 'node:crypto';
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fsyncSync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

import type { Cancel, Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { makeDirectory } from '../runtime/make-directory.ts';
import type { Service } from '../runtime/service.ts';
import {
  encodeEntry,
  entryBytesMax,
  genesis,
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  type AuditTrail,
} from './audit-entry.ts';
import {
  anchorPathOf,
  AuditError,
  auditFileOf,
  listAuditFiles,
  readAnchor,
  unusable,
  type AuditFile,
} from './audit-files.ts';
import { previousOf, readTail, type Tail } from './audit-tail.ts';
import type { ReachAuditCrashPoint } from './crash-point.ts';
import { begunAction, prunedAction } from './verify-audit.ts';

export interface AuditLogOptions {
  /** Made with mode 0700 when it is missing. */
  readonly directory: string;
  /** A file that would grow beyond this is followed by the next. */
  readonly fileBytesMax: number;
  /** Files kept, 2 or more; the oldest is removed, which an entry states first. */
  readonly filesMax: number;
  /**
   * What an entry survives as soon as `append` returns: `every-entry` a power cut, at the price of a wait for the disk;
   * a number a crash of the process, and a power cut that many ms later.
   */
  readonly sync: 'every-entry' | number;
}

/** Least `fileBytesMax`: what a rotation itself writes must fit. */
export const auditFileBytesMin = 4 * entryBytesMax;

export const auditLogDefault: Omit<AuditLogOptions, 'directory'> = {
  fileBytesMax: 16 * 1_024 * 1_024,
  filesMax: 64,
  sync: 1_000,
};

/**
 * An append-only log of what a site did for and asked of its neighbours, each entry chained to the one before.
 *
 *   append: line into the file | after-write | (fdatasync | note of the head beside the files | after-anchor)
 *   rotate: fdatasync, note, pruned entry | before-rotate | next file | oldest file removed
 *
 * The note is only written after the entries it covers are on disk. So at a start the files are at least as long as it
 * says; a torn last line after it is set aside, and anything else is a broken chain: the files stay as they are for
 * `isobar audit verify`, and a new file goes on from the note.
 */
export class AuditLog implements Service, AuditTrail {
  readonly name = 'audit-log';
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #reach: ReachAuditCrashPoint;
  readonly #options: AuditLogOptions;
  #files: AuditFile[] = [];
  #descriptor: number | undefined;
  #sizeBytes = 0;
  #head: AuditHead = genesis;
  #anchored: AuditHead = genesis;
  #syncing: Promise<void> | undefined;
  #isSyncDue = false;
  #isStopping = false;
  #cancelSync: Cancel = () => {};

  constructor(
    dependencies: {
      readonly clock: Clock;
      readonly log: Log;
      readonly reachCrashPoint?: ReachAuditCrashPoint;
    },
    options: AuditLogOptions,
  ) {
    assert(options.fileBytesMax >= auditFileBytesMin && options.filesMax >= 2);
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#reach = dependencies.reachCrashPoint ?? (() => {});
    this.#options = options;
  }

  /** The newest entry. */
  get head(): AuditHead {
    return this.#head;
  }

  /** @throws AuditError `audit-unusable` */
  async start(): Promise<void> {
    const { directory } = this.#options;
    try {
      makeDirectory(directory, 0o700);
      const notes = await this.#recover();
      for (const { action, object } of notes) this.append(localEvent(action, object));
      this.#anchorNow();
    } catch (error) {
      throw error instanceof AuditError ? error : unusable(directory, error);
    }
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#cancelSync();
    await this.#syncing;
    if (this.#descriptor === undefined) return;
    this.#anchorNow();
    closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  append(event: AuditEvent): AuditEntry {
    const { directory, fileBytesMax, sync } = this.#options;
    try {
      const { entry, line } = encodeEntry(event, this.#head, this.#clock.wallUs());
      if (this.#sizeBytes > 0 && this.#sizeBytes + line.byteLength > fileBytesMax) {
        this.#rotate();
        return this.append(event);
      }
      this.#write(line);
      this.#head = { seq: entry.seq, hash: entry.hash };
      this.#reach('after-write');
      if (sync === 'every-entry') this.#anchorNow();
      else this.#syncLater(sync);
      return entry;
    } catch (error) {
      throw error instanceof AuditError ? error : unusable(directory, error);
    }
  }

  /** Finds the head; what it finds to say about the log is to be appended. */
  async #recover(): Promise<readonly Note[]> {
    const { directory } = this.#options;
    this.#files = listAuditFiles(directory);
    const anchor = readAnchor(directory);
    const known = typeof anchor === 'string' ? genesis : anchor;
    const newest = this.#dropEmpty();
    if (newest === undefined) {
      if (known.seq === 0 && anchor !== 'damaged') {
        this.#begin(known);
        // Before the first entry: a log without a noted head was tampered with, not interrupted.
        this.#anchorNow();
        return [{ action: begunAction, object: '' }];
      }
      return this.#goOnFrom(known, 'all files are missing');
    }
    const tail = await readTail(newest);
    const head = tail.head ?? (await this.#headBefore(newest, known));
    const isBehind = head === undefined || head.seq < known.seq;
    const contradicts = tail.hashes.has(known.seq) && tail.hashes.get(known.seq) !== known.hash;
    if (isBehind || contradicts) {
      return this.#goOnFrom(known, tail.problem ?? 'entries are missing or were replaced');
    }
    const notes: Note[] = [];
    if (tail.endBytes < tail.sizeBytes) notes.push(this.#setAside(newest, tail));
    this.#open(newest, head);
    if (typeof anchor === 'string') {
      this.#log.error('audit-anchor-missing', { directory, state: anchor });
      notes.push({ action: 'audit.anchor', object: anchor });
    }
    return notes;
  }

  /** A crash right after a rotation leaves a file without a line; the newest file that has one, or undefined. */
  #dropEmpty(): AuditFile | undefined {
    for (let newest = this.#files.at(-1); newest !== undefined; newest = this.#files.at(-1)) {
      if (statSync(newest.path).size > 0) return newest;
      rmSync(newest.path);
      this.#files.pop();
    }
    return undefined;
  }

  /** The head before a file whose first line is torn. */
  async #headBefore(file: AuditFile, known: AuditHead): Promise<AuditHead | undefined> {
    if (known.seq === file.firstSeq - 1) return known;
    const before = this.#files.at(-2);
    const head = before === undefined ? undefined : (await readTail(before)).head;
    return head?.seq === file.firstSeq - 1 ? head : undefined;
  }

  #begin(head: AuditHead): void {
    const file = auditFileOf(this.#options.directory, head.seq + 1);
    this.#files = [...this.#files.filter(({ name }) => name !== file.name), file];
    this.#open(file, head);
  }

  /** The chain is broken: what is there stays as evidence, and what follows goes into a file of its own. */
  #goOnFrom(head: AuditHead, problem: string): readonly Note[] {
    const { directory } = this.#options;
    this.#log.error('audit-chain-broken', { directory, problem, headSeq: head.seq });
    const next = auditFileOf(directory, head.seq + 1);
    const taken = this.#files.filter(({ firstSeq }) => firstSeq >= next.firstSeq);
    for (const file of taken) {
      renameSync(file.path, join(directory, `broken-${this.#clock.wallUs()}-${file.name}`));
    }
    this.#files = this.#files.filter((file) => !taken.includes(file));
    this.#begin(head);
    return [{ action: 'audit.chain-broken', object: problem }];
  }

  /** Moves what follows the last whole line out of the way. */
  #setAside(file: AuditFile, tail: Tail): Note {
    const bytes = readFileSync(file.path).subarray(tail.endBytes);
    const asideName = `torn-${this.#clock.wallUs()}-${file.name}`;
    writeFileSync(join(this.#options.directory, asideName), bytes, { mode: 0o600 });
    truncateSync(file.path, tail.endBytes);
    this.#log.warn('audit-line-torn', { asideName, sizeBytes: bytes.byteLength });
    const digest = createHash('sha256').update(bytes).digest('hex');
    return { action: 'audit.torn', object: `${bytes.byteLength} bytes ${digest}` };
  }

  #open(file: AuditFile, head: AuditHead): void {
    this.#descriptor = openSync(file.path, 'a', 0o600);
    this.#sizeBytes = fstatSync(this.#descriptor).size;
    this.#head = head;
  }

  #write(line: Buffer): void {
    const descriptor = this.#descriptor;
    assert(descriptor !== undefined, 'the audit log is not open');
    if (fstatSync(descriptor).size !== this.#sizeBytes) {
      throw new AuditError(
        'audit-taken',
        `something else wrote to the audit log in ${this.#options.directory}: only one process may; stop the other, then restart this one`,
      );
    }
    let writtenBytes = 0;
    try {
      while (writtenBytes < line.byteLength) {
        writtenBytes += writeSync(descriptor, line, writtenBytes);
      }
      this.#sizeBytes += line.byteLength;
    } catch (error) {
      // A full disk takes part of a line: what follows must not be appended to that.
      if (writtenBytes > 0) truncateSync(this.#currentFile().path, this.#sizeBytes);
      throw error;
    }
  }

  #rotate(): void {
    this.#reach('before-rotate');
    const { directory, filesMax } = this.#options;
    this.#anchorNow();
    assert(this.#descriptor !== undefined);
    closeSync(this.#descriptor);
    this.#begin(this.#head);
    syncDirectory(directory);
    this.#log.info('audit-rotated', { ...this.#head });
    while (this.#files.length > filesMax) {
      const [oldest, next] = this.#files;
      assert(oldest !== undefined && next !== undefined);
      // The entry first: a crash in between leaves a file too many, never a hole that nothing explains.
      this.append(localEvent(prunedAction, `${next.firstSeq - 1} ${previousOf(next)}`));
      this.#anchorNow();
      this.#reach('before-prune');
      rmSync(oldest.path, { force: true });
      this.#files.shift();
    }
  }

  #currentFile(): AuditFile {
    const file = this.#files.at(-1);
    assert(file !== undefined);
    return file;
  }

  /** Syncs and notes the head once, `delayMs` from now, without keeping the event loop waiting for the disk. */
  #syncLater(delayMs: number): void {
    if (this.#isSyncDue) return;
    this.#isSyncDue = true;
    this.#cancelSync = this.#clock.after(delayMs, () => {
      const head = this.#head;
      const descriptor = this.#descriptor;
      if (descriptor === undefined) return;
      this.#syncing = new Promise((resolve) => {
        fdatasync(descriptor, (error) => {
          // After a rotation the descriptor may be another file's; rotating has noted what this would.
          if (this.#descriptor === descriptor) this.#anchorSynced(head, error);
          this.#isSyncDue = false;
          if (!this.#isStopping && this.#head.seq > this.#anchored.seq) this.#syncLater(delayMs);
          resolve();
        });
      });
    });
  }

  #anchorSynced(head: AuditHead, syncError: Error | null): void {
    try {
      if (syncError !== null) throw syncError;
      this.#anchor(head);
    } catch (error) {
      this.#log.error('audit-sync-failed', { error: String(error) });
    }
  }

  #anchorNow(): void {
    assert(this.#descriptor !== undefined);
    fdatasyncSync(this.#descriptor);
    this.#anchor(this.#head);
  }

  #anchor(head: AuditHead): void {
    if (head.seq < this.#anchored.seq) return;
    const path = anchorPathOf(this.#options.directory);
    const temporaryPath = `${path}.new`;
    const descriptor = openSync(temporaryPath, 'w', 0o600);
    try {
      writeSync(descriptor, `${JSON.stringify({ seq: head.seq, hash: head.hash })}\n`);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporaryPath, path);
    syncDirectory(dirname(path));
    this.#anchored = head;
    this.#reach('after-anchor');
  }
}

/** Something about the log itself that its readers should know. */
interface Note {
  readonly action: string;
  readonly object: string;
}

function localEvent(action: string, object: string): AuditEvent {
  return { relation: null, direction: 'local', action, object, outcome: 'ok', requestDigest: null };
}

/** A new name in a directory is on disk only after this. */
function syncDirectory(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
