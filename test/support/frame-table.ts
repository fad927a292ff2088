import { createHash } from 'node:crypto';

import type { EpochReason, FrameAppender } from '../../broker/ports.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { EncodedFrame, Epoch, FrameRecord, StreamId } from '../../common/wire/frame.ts';

/** A stream log as one SQLite table, bodies as JSON: numbers, links and closes like the real one, and prunes nothing. */
export class FrameTable implements FrameAppender {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    database.exec(`CREATE TABLE IF NOT EXISTS frame_table (
      position INTEGER PRIMARY KEY, vm TEXT, kind TEXT, epoch INTEGER, nonce TEXT, seq INTEGER,
      closes INTEGER, hash BLOB, records TEXT, UNIQUE (vm, kind, epoch, seq))`);
  }

  openEpoch(
    stream: StreamId,
    opening: { readonly generation: string | null; readonly reason: EpochReason },
  ): { readonly epoch: Epoch; readonly frame: EncodedFrame } {
    const last = this.#last(stream);
    const number = (last?.epoch ?? 0) + 1;
    const epoch: Epoch = { number, nonce: number.toString(16).padStart(16, '0') };
    const predecessor =
      last === undefined
        ? null
        : {
            epoch: { number: last.epoch, nonce: last.nonce },
            lastSeq: last.closes === 1 ? last.seq : null,
          };
    const record: FrameRecord = { kind: 'epoch-opened', predecessor, ...opening };
    return { epoch, frame: this.#insert(stream, epoch, 1, [record], false) };
  }

  append(stream: StreamId, records: readonly FrameRecord[]): EncodedFrame {
    const head = this.head(stream);
    if (head === undefined) throw new Error('no open epoch');
    return this.#insert(stream, head.epoch, head.seq + 1, records, false);
  }

  closeEpoch(stream: StreamId): EncodedFrame {
    const head = this.head(stream);
    if (head === undefined) throw new Error('no open epoch');
    const lastSeq = head.seq + 1;
    return this.#insert(stream, head.epoch, lastSeq, [{ kind: 'epoch-closed', lastSeq }], true);
  }

  head(stream: StreamId): { readonly epoch: Epoch; readonly seq: number } | undefined {
    const last = this.#last(stream);
    if (last === undefined || last.closes === 1) return undefined;
    return { epoch: { number: last.epoch, nonce: last.nonce }, seq: last.seq };
  }

  /** All records of a stream in order. */
  records(stream: StreamId): FrameRecord[] {
    return this.#database
      .prepare('SELECT records FROM frame_table WHERE vm = ? AND kind = ? ORDER BY position')
      .pluck()
      .all(stream.vm, stream.kind)
      .flatMap((json) => JSON.parse(String(json)) as FrameRecord[]);
  }

  #last(stream: StreamId): LastRow | undefined {
    return this.#database
      .prepare(
        'SELECT epoch, nonce, seq, closes FROM frame_table WHERE vm = ? AND kind = ? ORDER BY position DESC LIMIT 1',
      )
      .get(stream.vm, stream.kind) as LastRow | undefined;
  }

  #insert(
    stream: StreamId,
    epoch: Epoch,
    seq: number,
    records: readonly FrameRecord[],
    closes: boolean,
  ): EncodedFrame {
    const json = JSON.stringify(records, (_key, value: unknown) =>
      typeof value === 'bigint' ? value.toString() : value,
    );
    const bytes = Buffer.from(json);
    this.#database
      .prepare(
        'INSERT INTO frame_table (vm, kind, epoch, nonce, seq, closes, hash, records) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      )
      .run(
        stream.vm,
        stream.kind,
        epoch.number,
        epoch.nonce,
        seq,
        closes ? 1 : 0,
        createHash('sha256').update(bytes).digest(),
        json,
      );
    return {
      header: { stream, epoch, seq, previousHash: new Uint8Array(32), producedAtUs: 0 },
      bytes,
    };
  }
}

interface LastRow {
  readonly epoch: number;
  readonly nonce: string;
  readonly seq: number;
  readonly closes: number;
}
