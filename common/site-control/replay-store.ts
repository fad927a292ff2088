import assert from 'node:assert';
import { renameSync } from 'node:fs';

import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { DatabaseError, openDatabase, type Database } from '../sqlite/database.ts';
import { migrate } from '../sqlite/migrate.ts';

export interface ReplayStoreOptions {
  /** Shared by all processes of a site, so that a request to one of them is not fresh at another. */
  readonly path: string;
  /** Tolerated difference between two sites' clocks, s; requests count as valid so long after they expired. */
  readonly skewMaxS: number;
  /**
   * Nonces kept for one relation; beyond, its requests are refused until some expire. Others are not affected. What other
   * processes added since the last removal of expired ones, 10 s ago at most, is not counted.
   */
  readonly noncesPerRelationMax: number;
  /** Names the run of this machine (Linux: /proc/sys/kernel/random/boot_id); null when unknown. */
  readonly bootId: string | null;
}

/**
 * - `fresh`: never seen, and remembered from now on for as long as the request is valid
 * - `replayed`: seen before
 * - `expired`: may have been seen and forgotten
 * - `full`: the relation's bound is reached
 * - `uncertain`: signed before a time from which on we know what we saw; a request signed later is accepted
 */
export type Admission = 'fresh' | 'replayed' | 'expired' | 'full' | 'uncertain';

const migrations = [
  {
    name: 'nonces',
    up: `
      CREATE TABLE nonces (
        relation TEXT NOT NULL, nonce TEXT NOT NULL, expires_s INTEGER NOT NULL,
        PRIMARY KEY (relation, nonce)
      ) WITHOUT ROWID;
      CREATE INDEX nonces_by_expiry ON nonces (expires_s);
      CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        boot_id TEXT, forgotten_before_s INTEGER NOT NULL, certain_from_s INTEGER NOT NULL
      );`,
  },
] as const;

interface StateRow {
  readonly boot_id: string | null;
  readonly forgotten_before_s: number;
  readonly certain_from_s: number;
}

/** How often expired nonces are removed at most. */
const pruneIntervalS = 10;

/**
 * Nonces of accepted requests, in SQLite: a request is accepted once, also over restarts and steps of the clock.
 *
 *   process killed      the page cache has every commit: nothing is forgotten
 *   power cut, new disk the newest commits may be gone: requests signed before the opening (and `skewMaxS` after it, as
 *                       a neighbour's clock may be ahead) are `uncertain`
 *   clock set back      what was removed as expired stays refused (`forgotten_before_s`)
 *   first opening       requests signed before it are `uncertain`
 */
export class ReplayStore {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: ReplayStoreOptions;
  #database: Database | undefined;
  #forgottenBeforeS = 0;
  #certainFromS = 0;
  #prunedAtS = 0;
  readonly #counts = new Map<string, number>();

  constructor(
    dependencies: { readonly clock: Clock; readonly log: Log },
    options: ReplayStoreOptions,
  ) {
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#options = options;
  }

  /**
   * A damaged file is set aside as `PATH.damaged-TIME`.
   * @throws DatabaseError when there can be no database at all
   */
  open(): void {
    assert(this.#database === undefined);
    const { path } = this.#options;
    let isDamaged = false;
    try {
      this.#database = this.#openFile();
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.code !== 'database-corrupt') throw error;
      const asidePath = `${path}.damaged-${this.#clock.wallUs()}`;
      renameSync(path, asidePath);
      this.#log.error('replay-store-damaged', { asidePath });
      isDamaged = true;
      this.#database = this.#openFile();
    }
    const database = this.#database;
    database.transaction(() => this.#loadState(database, isDamaged)).immediate();
    this.#countNonces(this.#database);
  }

  close(): void {
    this.#database?.close();
    this.#database = undefined;
  }

  /** Asked for each request whose signature is verified; what is `fresh` is remembered when this returns. */
  admit(
    relation: string,
    request: { readonly nonce: string; readonly createdS: number; readonly expiresS: number },
  ): Admission {
    const database = this.#database;
    assert(database !== undefined, 'the replay store is not open');
    const nowS = Math.floor(this.#clock.wallUs() / 1_000_000);
    if (Math.abs(nowS - this.#prunedAtS) >= pruneIntervalS) this.#prune(database, nowS);
    this.#takeUpState(database);
    if (request.expiresS < this.#forgottenBeforeS) return 'expired';
    if (!this.#isCertain(request.createdS, nowS)) return 'uncertain';
    const count = this.#counts.get(relation) ?? 0;
    if (count >= this.#options.noncesPerRelationMax) return 'full';
    const { changes } = database
      .prepare('INSERT OR IGNORE INTO nonces (relation, nonce, expires_s) VALUES (?, ?, ?)')
      .run(relation, request.nonce, request.expiresS);
    if (changes === 0) return 'replayed';
    this.#counts.set(relation, count + 1);
    return 'fresh';
  }

  #openFile(): Database {
    // NORMAL: no wait for the disk in the event loop; see the table above for what a power cut means.
    const database = openDatabase(this.#options.path, { synchronous: 'NORMAL' });
    try {
      migrate(database, migrations);
      return database;
    } catch (error) {
      database.close();
      throw error;
    }
  }

  #loadState(database: Database, isDamaged: boolean): void {
    const { bootId, skewMaxS } = this.#options;
    const nowS = Math.floor(this.#clock.wallUs() / 1_000_000);
    const row = stateOf(database);
    const mayHaveForgotten =
      isDamaged || (row !== undefined && (bootId === null || row.boot_id !== bootId));
    this.#forgottenBeforeS = row?.forgotten_before_s ?? 0;
    this.#certainFromS = row?.certain_from_s ?? nowS;
    if (mayHaveForgotten) this.#certainFromS = Math.max(this.#certainFromS, nowS + skewMaxS + 1);
    database
      .prepare('INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?)')
      .run(bootId, this.#forgottenBeforeS, this.#certainFromS);
  }

  /** Another process may have removed nonces. */
  #takeUpState(database: Database): void {
    const row = stateOf(database);
    this.#forgottenBeforeS = Math.max(this.#forgottenBeforeS, row?.forgotten_before_s ?? 0);
  }

  #prune(database: Database, nowS: number): void {
    this.#prunedAtS = nowS;
    const beforeS = nowS - this.#options.skewMaxS;
    const remove = database.transaction(() => {
      this.#takeUpState(database);
      // The newest that is removed, not `beforeS`: a clock that was a day ahead for a moment costs a minute, no day.
      const { newest } = database
        .prepare<[number], { readonly newest: number | null }>(
          'SELECT max(expires_s) AS newest FROM nonces WHERE expires_s < ?',
        )
        .get(beforeS) ?? { newest: null };
      if (newest === null) return false;
      this.#forgottenBeforeS = Math.max(this.#forgottenBeforeS, newest + 1);
      database.prepare('DELETE FROM nonces WHERE expires_s < ?').run(beforeS);
      database.prepare('UPDATE state SET forgotten_before_s = ?').run(this.#forgottenBeforeS);
      return true;
    });
    if (remove.immediate()) this.#countNonces(database);
  }

  /** Whatever was accepted and forgotten was signed before now and the skew, however late the clock was at the opening. */
  #isCertain(createdS: number, nowS: number): boolean {
    this.#certainFromS = Math.min(this.#certainFromS, nowS + this.#options.skewMaxS + 1);
    return createdS >= this.#certainFromS;
  }

  #countNonces(database: Database): void {
    this.#counts.clear();
    const rows = database
      .prepare<[], { readonly relation: string; readonly count: number }>(
        'SELECT relation, count(*) AS count FROM nonces GROUP BY relation',
      )
      .all();
    for (const { relation, count } of rows) this.#counts.set(relation, count);
  }
}

function stateOf(database: Database): StateRow | undefined {
  return database
    .prepare<[], StateRow>('SELECT boot_id, forgotten_before_s, certain_from_s FROM state')
    .get();
}
