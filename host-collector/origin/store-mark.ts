import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';

import { z } from 'zod';

import type { Log } from '../../common/runtime/log.ts';
import { systemErrorCode } from '../../common/runtime/operating-error.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import { fileIdentity } from '../../common/sqlite/file-identity.ts';

const tokenBytes = 16;
const commitCountDigits = 16;

const databaseMark = z.object({ token: z.string(), commits: z.int(), file_id: z.string() });
type DatabaseMark = z.output<typeof databaseMark>;

/** `PREVIOUS TOKEN COMMITS`: while `token` is being written to the database, `previous` holds too. */
const fileText = /^([0-9a-f]{32}|-{32}) ([0-9a-f]{32}) (\d{16})\n$/;

/**
 * Tells the collector's own database from an older one that was put in its place: a backup, a copy of another host's,
 * or what a power cut left of commits that were not synced. Going on in such a one would give sequence numbers again
 * for other content.
 *
 * A file beside the database repeats what the database says of itself: a token that each start renews and a count that
 * rises with each commit of frames. The database also names the file (its inode), so that both restored together are
 * noticed too. Written after the commit and synced only at start and stop, the file is never ahead of its own database
 * unless commits were lost, and costs one small write a commit. Not noticed: a file system that is rolled back as a whole.
 */
export class StoreMark {
  readonly #database: Database;
  readonly #random: Random;
  readonly #path: string;
  readonly #count: Statement<[]>;
  readonly #log: Log;
  #descriptor: number | null = null;
  #isBehind = false;
  #token = '';
  #commits = 0;

  /** `path`: the file, made if it is not there. */
  constructor(
    deps: { readonly database: Database; readonly random: Random; readonly log: Log },
    path: string,
  ) {
    this.#database = deps.database;
    this.#random = deps.random;
    this.#log = deps.log;
    this.#path = path;
    this.#count = deps.database.prepare('UPDATE collector_mark SET commits = commits + 1');
  }

  /**
   * Marks file and database anew. When this is not the database that the file was written beside, every VM in it is
   * flagged, durably, to begin new epochs; then returns true.
   */
  open(): boolean {
    const found = this.#database
      .prepare('SELECT token, commits, file_id FROM collector_mark')
      .get();
    const marked = found === undefined ? null : databaseMark.parse(found);
    const text = readText(this.#path);
    this.#descriptor = openSync(this.#path, text === null ? 'w+' : 'r+', 0o600);
    const fileId = fileIdentity(this.#path);
    const isRestored = marked !== null && !belongs(marked, text, fileId);
    this.#token = Buffer.from(this.#random.bytes(tokenBytes)).toString('hex');
    this.#commits = marked?.commits ?? 0;
    this.#writeFile(marked?.token ?? '-'.repeat(2 * tokenBytes));
    const mark = this.#database.transaction(() => {
      if (isRestored) this.#database.exec('UPDATE collector_vm SET is_restored = 1');
      this.#database.exec('DELETE FROM collector_mark');
      this.#database
        .prepare('INSERT INTO collector_mark (token, commits, file_id) VALUES (?, ?, ?)')
        .run(this.#token, this.#commits, fileId);
    });
    mark.immediate();
    this.#writeFile('-'.repeat(2 * tokenBytes));
    return isRestored;
  }

  /** Within a transaction that appends frames. */
  count(): void {
    this.#count.run();
  }

  /** After its commit, which stands: a disk that refuses the count leaves the file behind until the next one. */
  committed(): void {
    this.#commits += 1;
    if (this.#descriptor === null) return;
    const offset = 2 * (2 * tokenBytes + 1);
    try {
      writeSync(this.#descriptor, commitsText(this.#commits), offset);
      this.#isBehind = false;
    } catch (cause) {
      if (!this.#isBehind) this.#log.warn('store-mark-behind', { cause: String(cause) });
      this.#isBehind = true;
    }
  }

  /** Makes the file durable, so that a copy of the database that was made while it was in use is an older one. */
  close(): void {
    if (this.#descriptor === null) return;
    fsyncSync(this.#descriptor);
    closeSync(this.#descriptor);
    this.#descriptor = null;
  }

  #writeFile(previous: string): void {
    if (this.#descriptor === null) return;
    const text = `${previous} ${this.#token} ${commitsText(this.#commits)}\n`;
    writeSync(this.#descriptor, text, 0);
    fsyncSync(this.#descriptor);
  }
}

/** Whether the file was written beside this database, of which no commit is missing. */
function belongs(marked: DatabaseMark, text: string | null, fileId: string): boolean {
  const match = fileText.exec(text ?? '');
  if (match === null || marked.file_id !== fileId) return false;
  const [, previous, token, commits] = match;
  return (marked.token === token || marked.token === previous) && marked.commits >= Number(commits);
}

function commitsText(commits: number): string {
  return String(commits).padStart(commitCountDigits, '0');
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return null;
    throw error;
  }
}
