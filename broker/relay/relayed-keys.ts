import type { KeyClaim, KeyStatement, VerifiedClaim } from '../../common/signing/key-statement.ts';
import type { ClaimStore } from '../../common/signing/statement-verifier.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';

interface KeyRow {
  readonly public_key: Uint8Array;
  readonly predecessor_number: number | null;
  readonly predecessor_nonce: string | null;
}

type EpochPlace = [vm: string, kind: string, number: number, nonce: string];

/**
 * The keys of epochs as neighbours stated them, kept beside the log as long as it knows the epoch. The first statement
 * counts. Who stated it is not kept with it: it is the neighbour that the epoch comes from.
 */
export class RelayedKeys implements ClaimStore {
  readonly #find: Statement<EpochPlace, KeyRow>;
  readonly #insert: Statement<[Uint8Array, number | null, string | null, ...EpochPlace]>;

  constructor(database: Database) {
    const place = 'vm = ? AND kind = ? AND number = ? AND nonce = ?';
    this.#find = database.prepare(
      `SELECT public_key, predecessor_number, predecessor_nonce
       FROM relay_epoch_keys JOIN stream_log_epochs USING (epoch_id) WHERE ${place}`,
    );
    this.#insert = database.prepare(
      `INSERT INTO relay_epoch_keys SELECT epoch_id, ?, ?, ? FROM stream_log_epochs WHERE ${place}`,
    );
  }

  /** What is stated downstream. */
  claimOf(stream: StreamId, epoch: Epoch): KeyClaim | undefined {
    const row = this.#find.get(...placeOf(stream, epoch));
    if (row === undefined) return undefined;
    const { predecessor_number: number, predecessor_nonce: nonce } = row;
    const predecessor = number === null || nonce === null ? null : { number, nonce };
    return { stream, epoch, publicKey: Uint8Array.from(row.public_key), predecessor };
  }

  isKnown({ stream, epoch, publicKey }: KeyStatement): boolean {
    const row = this.#find.get(...placeOf(stream, epoch));
    return row !== undefined && Buffer.from(row.public_key).toString('base64url') === publicKey;
  }

  /** False as well for an epoch that the log does not know: the consumer has claimed it for a neighbour before. */
  accept({ stream, epoch, publicKey, predecessor }: VerifiedClaim): boolean {
    const place = placeOf(stream, epoch);
    const known = this.#find.get(...place);
    if (known !== undefined) return Buffer.compare(known.public_key, publicKey) === 0;
    const { number = null, nonce = null } = predecessor ?? {};
    return this.#insert.run(publicKey, number, nonce, ...place).changes > 0;
  }
}

function placeOf({ vm, kind }: StreamId, { number, nonce }: Epoch): EpochPlace {
  return [vm, kind, number, nonce];
}
