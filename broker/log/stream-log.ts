import assert from 'node:assert';

import type { Clock } from '../../common/runtime/clock.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import { encodeFrame, firstPreviousHash, frameHash } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, FrameRecord, StreamId } from '../../common/wire/frame.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';
import type { EpochReason, FrameAppender, FrameProtector } from '../ports.ts';
import type { SeqRange } from '../range-set.ts';
import type { FrameLog, LogEpoch, LoggedFrame, LostRange } from './frame-log.ts';
import { LoggedFrames } from './logged-frames.ts';

export type StreamLogErrorCode = 'epoch-missing' | 'epoch-closed';

/** A use of the log that its state does not allow. */
export class StreamLogError extends OperatingError<StreamLogErrorCode> {
  override readonly name = 'StreamLogError';
}

interface EpochRow {
  readonly epoch_id: number;
  readonly vm: string;
  readonly kind: 'data' | 'status';
  readonly number: number;
  readonly nonce: string;
  readonly last_seq: number;
  readonly last_hash: Uint8Array;
  readonly closed: number;
}

const epochColumns = 'epoch_id, vm, kind, number, nonce, last_seq, last_hash, closed';
const nonceBytes = 8;

/**
 * A producer's frames on disk: appended by the origin inside its own transaction, read in ranges by whoever serves
 * queries. Nothing is cached, so a rolled back transaction leaves nothing behind. `migrateStreamLog` comes first.
 * Not for several threads: one log, one connection.
 */
export class StreamLog implements FrameAppender, FrameLog {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #protector: FrameProtector | undefined;
  readonly #newestEpoch: Statement<[string, string], EpochRow>;
  readonly #findEpoch: Statement<[string, string, number, string], EpochRow>;
  readonly #insertFrame: Statement<[number, number, number, Uint8Array]>;
  readonly #advanceEpoch: Statement<[number, Uint8Array, number, number, number]>;
  readonly #frames: LoggedFrames;

  constructor(deps: {
    readonly database: Database;
    readonly clock: Clock;
    readonly random: Random;
    /** Seals and signs what is appended; without it frames are in the clear and unsigned. */
    readonly protector?: FrameProtector;
  }) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#protector = deps.protector;
    this.#newestEpoch = deps.database.prepare(
      `SELECT ${epochColumns} FROM stream_log_epochs WHERE vm = ? AND kind = ? ORDER BY number DESC, epoch_id DESC`,
    );
    this.#findEpoch = deps.database.prepare(
      `SELECT ${epochColumns} FROM stream_log_epochs WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?`,
    );
    this.#insertFrame = deps.database.prepare(
      'INSERT INTO stream_log_frames (epoch_id, seq, produced_at_us, bytes) VALUES (?, ?, ?, ?)',
    );
    this.#advanceEpoch = deps.database.prepare(
      'UPDATE stream_log_epochs SET last_seq = ?, last_hash = ?, closed = ?, bytes = bytes + ? WHERE epoch_id = ?',
    );
    this.#frames = new LoggedFrames(deps.database);
  }

  openEpoch(
    stream: StreamId,
    opening: { readonly generation: string | null; readonly reason: EpochReason },
  ): { readonly epoch: Epoch; readonly frame: EncodedFrame } {
    assert(this.#database.inTransaction, 'the log writes inside its owner’s transaction');
    const newest = this.#newestEpoch.get(stream.vm, stream.kind);
    const epoch: Epoch = {
      number: (newest?.number ?? 0) + 1,
      nonce: Buffer.from(this.#random.bytes(nonceBytes)).toString('hex'),
    };
    this.#database
      .prepare(
        `INSERT INTO stream_log_epochs (vm, kind, number, nonce, last_seq, last_hash, closed, bytes)
         VALUES (?, ?, ?, ?, 0, ?, 0, 0)`,
      )
      .run(stream.vm, stream.kind, epoch.number, epoch.nonce, firstPreviousHash);
    const frame = this.append(stream, [
      { kind: 'epoch-opened', predecessor: predecessorOf(newest), ...opening },
    ]);
    return { epoch, frame };
  }

  /** @throws StreamLogError `epoch-missing` before the first openEpoch, `epoch-closed` after closeEpoch. */
  append(stream: StreamId, records: readonly FrameRecord[]): EncodedFrame {
    return this.#append(stream, this.#openEpochRow(stream), records, false);
  }

  /** @throws StreamLogError as {@link append}. */
  closeEpoch(stream: StreamId): EncodedFrame {
    const row = this.#openEpochRow(stream);
    const records: FrameRecord[] = [{ kind: 'epoch-closed', lastSeq: row.last_seq + 1 }];
    return this.#append(stream, row, records, true);
  }

  head(stream: StreamId): { readonly epoch: Epoch; readonly seq: number } | undefined {
    const row = this.#newestEpoch.get(stream.vm, stream.kind);
    if (row === undefined || row.closed === 1) return undefined;
    return { epoch: epochOf(row), seq: row.last_seq };
  }

  epochs(): LogEpoch[] {
    return this.#database
      .prepare<[], EpochRow>(`SELECT ${epochColumns} FROM stream_log_epochs ORDER BY epoch_id`)
      .all()
      .map((row) => ({
        stream: { vm: vmIdSchema.parse(row.vm), kind: row.kind },
        epoch: epochOf(row),
        lastSeq: row.last_seq,
      }));
  }

  read(stream: StreamId, epoch: Epoch, range: SeqRange, bytesMax: number): LoggedFrame[] {
    return this.#frames.read(stream, epoch, range, bytesMax);
  }

  lostIn(stream: StreamId, epoch: Epoch, range: SeqRange): LostRange[] {
    const row = this.#findEpoch.get(stream.vm, stream.kind, epoch.number, epoch.nonce);
    const nowUs = this.#clock.wallUs();
    if (row === undefined) return [{ ...range, reason: 'epoch-unknown', declaredAtUs: nowUs }];
    const throughSeq = Math.min(range.throughSeq, row.last_seq);
    const first = this.#database
      .prepare<[number], { seq: number | null }>(
        'SELECT min(seq) AS seq FROM stream_log_frames WHERE epoch_id = ?',
      )
      .get(row.epoch_id);
    const firstKept = first?.seq ?? row.last_seq + 1;
    const declared = this.#database
      .prepare<[number, number, number], LostRange>(
        `SELECT from_seq AS fromSeq, through_seq AS throughSeq, reason, declared_at_us AS declaredAtUs
         FROM stream_log_lost
         WHERE epoch_id = ? AND through_seq >= ? AND from_seq <= ? ORDER BY from_seq`,
      )
      .all(row.epoch_id, range.fromSeq, throughSeq);
    return fillBefore(declared, { fromSeq: range.fromSeq, throughSeq }, firstKept, nowUs);
  }

  #openEpochRow(stream: StreamId): EpochRow {
    const row = this.#newestEpoch.get(stream.vm, stream.kind);
    const name = `${stream.vm}/${stream.kind}`;
    if (row === undefined) {
      throw new StreamLogError('epoch-missing', `${name} has no epoch: open one before appending`);
    }
    if (row.closed === 1) {
      throw new StreamLogError(
        'epoch-closed',
        `${name} epoch ${row.number} is closed: open the next`,
      );
    }
    return row;
  }

  #append(
    stream: StreamId,
    row: EpochRow,
    records: readonly FrameRecord[],
    closes: boolean,
  ): EncodedFrame {
    assert(this.#database.inTransaction, 'the log writes inside its owner’s transaction');
    const header = {
      stream,
      epoch: epochOf(row),
      seq: row.last_seq + 1,
      previousHash: row.last_hash,
      producedAtUs: this.#clock.wallUs(),
    };
    const bytes = encodeFrame({ header, records }, this.#protector?.protect(header, records));
    this.#insertFrame.run(row.epoch_id, header.seq, header.producedAtUs, bytes);
    this.#advanceEpoch.run(
      header.seq,
      frameHash(bytes),
      closes ? 1 : 0,
      bytes.length,
      row.epoch_id,
    );
    return { header, bytes };
  }
}

function epochOf(row: EpochRow): Epoch {
  return { number: row.number, nonce: row.nonce };
}

function predecessorOf(
  row: EpochRow | undefined,
): { readonly epoch: Epoch; readonly lastSeq: number | null } | null {
  if (row === undefined) return null;
  return { epoch: epochOf(row), lastSeq: row.closed === 1 ? row.last_seq : null };
}

/**
 * `declared` cut to the range, and what lies between its members. Retention only ever removes the beginning of an
 * epoch, so what is not declared and lies before `firstKept` was pruned after it was stored.
 */
function fillBefore(
  declared: readonly LostRange[],
  { fromSeq, throughSeq }: SeqRange,
  firstKept: number,
  nowUs: number,
): LostRange[] {
  const lost: LostRange[] = [];
  let next = fromSeq;
  const fill = (untilSeq: number): void => {
    const end = Math.min(untilSeq, throughSeq, firstKept - 1);
    if (next > end) return;
    const reason = 'pruned-after-stored';
    lost.push({ fromSeq: next, throughSeq: end, reason, declaredAtUs: nowUs });
  };
  for (const range of declared) {
    fill(range.fromSeq - 1);
    const start = Math.max(range.fromSeq, fromSeq);
    lost.push({ ...range, fromSeq: start, throughSeq: Math.min(range.throughSeq, throughSeq) });
    next = range.throughSeq + 1;
  }
  fill(throughSeq);
  return lost;
}
