import {
  epochKeyFromBytes,
  epochKeyToBytes,
  newEpochKey,
  type EpochKey,
} from '../../common/signing/epoch-key.ts';
import type { KeyClaim } from '../../common/signing/key-statement.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import { streamKinds, type Epoch, type StreamId } from '../../common/wire/frame.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';

/** Epochs of a stream whose public keys are kept: as many as a log announces. */
const keysPerStreamMax = 256;
/** Private keys that are kept parsed; beyond it they are parsed again. */
const parsedKeysMax = 4_096;

interface ClaimRow {
  readonly public_key: Uint8Array;
  readonly predecessor_number: number | null;
  readonly predecessor_nonce: string | null;
}

interface EpochRow extends ClaimRow {
  readonly vm: string;
  readonly kind: string;
  readonly number: number;
  readonly nonce: string;
}

/**
 * The keys that sign this host's epochs. A key is made in the transaction that appends the first frame it signs, and
 * its private half is gone with the epoch: when it is closed, or a later one of its stream has a key. Private halves are
 * nowhere but in the collector's database, whose directory only its user can enter.
 */
export class EpochKeyStore {
  readonly #database: Database;
  readonly #parsed = new Map<string, EpochKey>();
  readonly #find: Statement<[string, string, number, string], { private_key: Uint8Array }>;
  readonly #findClaim: Statement<[string, string, number, string], ClaimRow>;

  constructor(database: Database) {
    this.#database = database;
    // A table of its own, made where it is missing, so that a collector begins to sign without a new schema version.
    database.exec(
      `CREATE TABLE IF NOT EXISTS collector_epoch_keys (
         vm TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, nonce TEXT NOT NULL,
         public_key BLOB NOT NULL, private_key BLOB,
         predecessor_number INTEGER, predecessor_nonce TEXT,
         PRIMARY KEY (vm, kind, number, nonce)
       ) STRICT, WITHOUT ROWID`,
    );
    this.#find = database.prepare(
      `SELECT private_key FROM collector_epoch_keys
       WHERE vm = ? AND kind = ? AND number = ? AND nonce = ? AND private_key IS NOT NULL`,
    );
    this.#findClaim = database.prepare(
      `SELECT public_key, predecessor_number, predecessor_nonce FROM collector_epoch_keys
       WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?`,
    );
  }

  /** The epoch's key, made if it has none. Within the caller's transaction: what is rolled back is found gone. */
  keyOf(stream: StreamId, epoch: Epoch, predecessor: Epoch | null): EpochKey {
    return this.find(stream, epoch) ?? this.#make(stream, epoch, predecessor);
  }

  /** The key of an epoch that is signed and open. */
  find(stream: StreamId, epoch: Epoch): EpochKey | undefined {
    const found = this.#find.get(stream.vm, stream.kind, epoch.number, epoch.nonce);
    if (found === undefined) return undefined;
    const name = Buffer.from(found.private_key).toString('latin1');
    const parsed = this.#parsed.get(name) ?? epochKeyFromBytes(found.private_key);
    if (this.#parsed.size >= parsedKeysMax) this.#parsed.clear();
    this.#parsed.set(name, parsed);
    return parsed;
  }

  /** The epoch has its last frame: its key signs nothing more. Within the caller's transaction. */
  retire(stream: StreamId, epoch: Epoch): void {
    this.#database
      .prepare<[string, string, number]>(
        'UPDATE collector_epoch_keys SET private_key = NULL WHERE vm = ? AND kind = ? AND number <= ?',
      )
      .run(stream.vm, stream.kind, epoch.number);
  }

  /** What a key statement says of an epoch's key, for the site to sign and to hand on; undefined: it has none. */
  claimOf(stream: StreamId, epoch: Epoch): KeyClaim | undefined {
    const row = this.#findClaim.get(stream.vm, stream.kind, epoch.number, epoch.nonce);
    return row === undefined ? undefined : claimOf(stream, epoch, row);
  }

  /** What is stated of each key, oldest first. */
  claims(): readonly KeyClaim[] {
    return this.#database
      .prepare<[], EpochRow>(
        `SELECT vm, kind, number, nonce, public_key, predecessor_number, predecessor_nonce
         FROM collector_epoch_keys ORDER BY vm, kind, number`,
      )
      .all()
      .flatMap((row) => {
        const kind = streamKinds.find((each) => each === row.kind);
        if (kind === undefined) return [];
        const { number, nonce } = row;
        return [claimOf({ vm: vmIdSchema.parse(row.vm), kind }, { number, nonce }, row)];
      });
  }

  #make(stream: StreamId, epoch: Epoch, predecessor: Epoch | null): EpochKey {
    const key = newEpochKey();
    this.retire(stream, epoch);
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO collector_epoch_keys
           (vm, kind, number, nonce, public_key, private_key, predecessor_number, predecessor_nonce)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        stream.vm,
        stream.kind,
        epoch.number,
        epoch.nonce,
        key.publicKey,
        epochKeyToBytes(key),
        predecessor?.number ?? null,
        predecessor?.nonce ?? null,
      );
    this.#database
      .prepare<[string, string, number]>(
        'DELETE FROM collector_epoch_keys WHERE vm = ? AND kind = ? AND number <= ?',
      )
      .run(stream.vm, stream.kind, epoch.number - keysPerStreamMax);
    return key;
  }
}

function claimOf(stream: StreamId, epoch: Epoch, row: ClaimRow): KeyClaim {
  const { predecessor_number: number, predecessor_nonce: nonce } = row;
  const predecessor = number === null || nonce === null ? null : { number, nonce };
  return { stream, epoch, publicKey: Uint8Array.from(row.public_key), predecessor };
}
