import type { KeyObject } from 'node:crypto';

import { epochKey as epochName } from '../../broker/stream-key.ts';
import { epochPublicKey } from '../../common/signing/epoch-key.ts';
import type { KeyStatement, VerifiedClaim } from '../../common/signing/key-statement.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { IntegrityRecords } from './integrity-records.ts';

/** Keys kept parsed; beyond it they are read again. */
const cachedMax = 4_096;
export interface StatedKeysLimits {
  /** Keys kept of epochs of one stream that no frame has come of, and a tenth more. */
  readonly keysWithoutFramesMax: number;
}

/** Far more than a stream log announces. */
const defaultLimits: StatedKeysLimits = { keysWithoutFramesMax: 4_096 };

/**
 * The keys of epochs, as the neighbour stated them. The first statement of an epoch counts for as long as the store knows the
 * epoch: what a neighbour states of other epochs, whatever their numbers, pushes out only keys that nothing was verified with.
 */
export class StatedKeys {
  readonly #database: Database;
  readonly #records: IntegrityRecords;
  readonly #limits: StatedKeysLimits;
  readonly #cache = new Map<string, KeyObject>();

  constructor(database: Database, records: IntegrityRecords, limits = defaultLimits) {
    this.#database = database;
    this.#records = records;
    this.#limits = limits;
  }

  /** False when another key was stated for this epoch before: that is recorded, and the first one stays. */
  accept({ stream, epoch, publicKey }: VerifiedClaim, atUs: number): boolean {
    const known = this.#read(stream, epoch);
    if (known !== undefined) {
      if (Buffer.compare(known, publicKey) === 0) return true;
      this.#records.note({ stream, epoch, seq: 0 }, 'key-contradicting', atUs);
      return false;
    }
    this.#database
      .prepare(
        'INSERT INTO epoch_keys (vm, kind, number, nonce, public_key) VALUES (?, ?, ?, ?, ?)',
      )
      .run(stream.vm, stream.kind, epoch.number, epoch.nonce, publicKey);
    this.#dropOldest(stream);
    // Frames that were quicker than the statement are no longer a finding.
    this.#records.withdraw({ stream, epoch }, 'key-not-stated');
    return true;
  }

  has({ stream, epoch, publicKey }: KeyStatement): boolean {
    const known = this.#read(stream, epoch);
    return known !== undefined && Buffer.from(known).toString('base64url') === publicKey;
  }

  /** The key that signs this epoch; undefined while nobody has stated one. */
  keyOf(stream: StreamId, epoch: Epoch): KeyObject | undefined {
    const name = epochName(stream, epoch);
    const cached = this.#cache.get(name);
    if (cached !== undefined) return cached;
    const bytes = this.#read(stream, epoch);
    const key = bytes === undefined ? undefined : epochPublicKey(bytes);
    if (key === undefined) return undefined;
    if (this.#cache.size >= cachedMax) this.#cache.clear();
    this.#cache.set(name, key);
    return key;
  }

  #dropOldest({ vm, kind }: StreamId): void {
    const { keysWithoutFramesMax } = this.#limits;
    const stated = this.#database
      .prepare<[string, string], number>(
        'SELECT count(*) FROM epoch_keys WHERE vm = ? AND kind = ?',
      )
      .pluck()
      .get(vm, kind);
    if ((stated ?? 0) <= keysWithoutFramesMax * 1.1) return;
    const dropped = this.#database
      .prepare<[string, string, number]>(
        `DELETE FROM epoch_keys WHERE key_id IN (
           SELECT key_id FROM epoch_keys LEFT JOIN epochs USING (vm, kind, number, nonce)
           WHERE vm = ? AND kind = ? AND epoch_id IS NULL
           ORDER BY key_id DESC LIMIT -1 OFFSET ?)`,
      )
      .run(vm, kind, keysWithoutFramesMax);
    if (dropped.changes > 0) this.#cache.clear();
  }

  #read(stream: StreamId, epoch: Epoch): Uint8Array | undefined {
    return this.#database
      .prepare<[string, string, number, string], { public_key: Uint8Array }>(
        'SELECT public_key FROM epoch_keys WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?',
      )
      .get(stream.vm, stream.kind, epoch.number, epoch.nonce)?.public_key;
  }
}
