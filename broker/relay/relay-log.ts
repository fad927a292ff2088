import type { Clock } from '../../common/runtime/clock.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import { firstPreviousHash } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';
import { EpochRanges, type RangeTables } from '../log/epoch-ranges.ts';
import {
  prunedAfterStored,
  type FrameLog,
  type LogEpoch,
  type LoggedFrame,
  type LostRange,
} from '../log/frame-log.ts';
import { LoggedFrames } from '../log/logged-frames.ts';
import type { StoredRange } from '../ports.ts';
import { RangeSet, type SeqRange } from '../range-set.ts';

const tables: RangeTables = {
  epochs: 'stream_log_epochs',
  insertEpoch: `INSERT INTO stream_log_epochs (vm, kind, number, nonce, last_seq, last_hash, closed, bytes)
    VALUES (?, ?, ?, ?, 0, x'${Buffer.from(firstPreviousHash).toString('hex')}', 0, 0) ON CONFLICT DO NOTHING`,
  stored: 'relay_stored_ranges',
  lost: 'stream_log_lost',
  lostAtUs: 'declared_at_us',
};

interface EpochRow {
  readonly epoch_id: number;
  readonly vm: string;
  readonly kind: 'data' | 'status';
  readonly number: number;
  readonly nonce: string;
  readonly last_seq: number;
}

/**
 * The frames that a relay has received, on disk, exactly as they came: never renumbered, split or merged, in whatever
 * order they arrive. Each epoch has one neighbour that it comes from: the first that brought it.
 * `migrateRelayLog` comes first; one log, one connection.
 */
export class RelayLog implements FrameLog {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #ranges: EpochRanges;
  /** The neighbour of each epoch that was looked at, by the epoch's row id. */
  readonly #sources = new Map<number, string>();
  readonly #insertFrame: Statement<[number, number, number, Uint8Array]>;
  readonly #advanceEpoch: Statement<[number, number, number]>;
  readonly #frames: LoggedFrames;
  /** Run for each epoch whose watermark the final reader raises. */
  readonly #findSource: Statement<[number], { relation: string }>;

  constructor(deps: { readonly database: Database; readonly clock: Clock }) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#ranges = new EpochRanges(deps.database, tables);
    // The time of arrival here: a neighbour's clock must not decide what our retention thinks is old.
    this.#insertFrame = deps.database.prepare(
      'INSERT INTO stream_log_frames (epoch_id, seq, produced_at_us, bytes) VALUES (?, ?, ?, ?)',
    );
    this.#advanceEpoch = deps.database.prepare(
      'UPDATE stream_log_epochs SET last_seq = max(last_seq, ?), bytes = bytes + ? WHERE epoch_id = ?',
    );
    this.#frames = new LoggedFrames(deps.database);
    this.#findSource = deps.database.prepare(
      'SELECT relation FROM relay_sources WHERE epoch_id = ?',
    );
  }

  /**
   * Whether `relation` is where this epoch comes from; the first to ask becomes it, durably. Another one that offers
   * the epoch is a loop, or claims what is not its own.
   */
  claim(relation: string, stream: StreamId, epoch: Epoch): boolean {
    const epochId = this.#ranges.idOf(stream, epoch);
    let source = this.#sources.get(epochId);
    if (source === undefined) {
      this.#database
        .prepare<[number, string]>('INSERT INTO relay_sources VALUES (?, ?) ON CONFLICT DO NOTHING')
        .run(epochId, relation);
      source = this.#sourceOfId(epochId);
      if (source !== undefined) this.#sources.set(epochId, source);
    }
    return source === relation;
  }

  /** Whether the log has heard of an epoch. */
  knows(stream: StreamId, epoch: Epoch): boolean {
    return this.#ranges.knows(stream, epoch) || this.#frames.epochId(stream, epoch) !== undefined;
  }

  /** The neighbour that an epoch comes from; undefined when nobody brought it yet. */
  sourceOf(stream: StreamId, epoch: Epoch): string | undefined {
    const epochId = this.#frames.epochId(stream, epoch);
    return epochId === undefined ? undefined : this.#sourceOfId(epochId);
  }

  /** The neighbour that the stream's newest epoch comes from. */
  newestSourceOf({ vm, kind }: StreamId): string | undefined {
    return this.#database
      .prepare<[string, string], { relation: string }>(
        `SELECT relation FROM stream_log_epochs JOIN relay_sources USING (epoch_id)
         WHERE vm = ? AND kind = ? ORDER BY number DESC, epoch_id DESC LIMIT 1`,
      )
      .get(vm, kind)?.relation;
  }

  /** Commits `frames`, each once, in one transaction; a frame that was declared lost withdraws the declaration. */
  store(frames: readonly EncodedFrame[]): void {
    const nowUs = this.#clock.wallUs();
    const write = this.#database.transaction(() => {
      const advanced = new Map<number, { lastSeq: number; bytes: number }>();
      for (const { header, bytes } of frames) {
        const epochId = this.#ranges.idOf(header.stream, header.epoch);
        if (!this.#ranges.addSeq(epochId, header.seq)) continue;
        this.#insertFrame.run(epochId, header.seq, nowUs, bytes);
        const before = advanced.get(epochId) ?? { lastSeq: 0, bytes: 0 };
        advanced.set(epochId, {
          lastSeq: Math.max(before.lastSeq, header.seq),
          bytes: before.bytes + bytes.length,
        });
      }
      for (const [epochId, { lastSeq, bytes }] of advanced) {
        this.#advanceEpoch.run(lastSeq, bytes, epochId);
      }
      this.#ranges.writeRanges();
    });
    this.#run(write);
  }

  /** Makes durable that the neighbour has given up a range. */
  declareLost(
    stream: StreamId,
    lost: SeqRange & { readonly epoch: Epoch; readonly reason: string },
  ): void {
    const write = this.#database.transaction(() => {
      this.#ranges.declareLost(stream, lost, this.#clock.wallUs());
      this.#advanceEpoch.run(lost.throughSeq, 0, this.#ranges.idOf(stream, lost.epoch));
    });
    this.#run(write);
  }

  /** Ranges that were ever made durable here, pruned or not. */
  stored(stream: StreamId): readonly StoredRange[] {
    return this.#ranges.stored(stream);
  }

  /** Call after retention, which may have dropped whole epochs. */
  forget(): void {
    this.#ranges.forget();
    this.#sources.clear();
  }

  epochs(): LogEpoch[] {
    return this.#database
      .prepare<[], EpochRow>(
        `SELECT epoch_id, vm, kind, number, nonce, last_seq FROM stream_log_epochs
         WHERE last_seq > 0 ORDER BY epoch_id`,
      )
      .all()
      .map((row) => ({
        stream: { vm: vmIdSchema.parse(row.vm), kind: row.kind },
        epoch: { number: row.number, nonce: row.nonce },
        lastSeq: row.last_seq,
      }));
  }

  read(stream: StreamId, epoch: Epoch, range: SeqRange, bytesMax: number): LoggedFrame[] {
    return this.#frames.read(stream, epoch, range, bytesMax);
  }

  lostIn(stream: StreamId, epoch: Epoch, range: SeqRange): LostRange[] {
    const epochId = this.#frames.epochId(stream, epoch);
    if (epochId === undefined) return [];
    const declared = this.#ranges.lost(epochId).flatMap((lost) => clip(lost, range, lost.reason));
    // What was stored here once and is no more, and not declared, was pruned after every subscriber had it.
    const gone = new RangeSet(
      this.#ranges.stored(stream).filter((stored) => isSameEpoch(stored.epoch, epoch)),
    );
    for (const kept of this.#keptIn(epochId, range)) {
      gone.deleteRange(kept.fromSeq, kept.throughSeq);
    }
    for (const lost of declared) gone.deleteRange(lost.fromSeq, lost.throughSeq);
    const pruned = gone.ranges.flatMap((part) => clip(part, range, prunedAfterStored));
    return [...declared, ...pruned].toSorted((left, right) => left.fromSeq - right.fromSeq);
  }

  /** Ranges of frames that are here. */
  #keptIn(epochId: number, range: SeqRange): SeqRange[] {
    return this.#database
      .prepare<[number, number, number], SeqRange>(
        `SELECT min(seq) AS fromSeq, max(seq) AS throughSeq FROM (
           SELECT seq, seq - row_number() OVER (ORDER BY seq) AS island
           FROM stream_log_frames WHERE epoch_id = ? AND seq BETWEEN ? AND ?)
         GROUP BY island`,
      )
      .all(epochId, range.fromSeq, range.throughSeq);
  }

  #sourceOfId(epochId: number): string | undefined {
    return this.#findSource.get(epochId)?.relation;
  }

  #run(write: { immediate: () => void }): void {
    try {
      write.immediate();
    } catch (cause) {
      this.forget();
      throw cause;
    }
  }
}

function isSameEpoch(left: Epoch, right: Epoch): boolean {
  return left.number === right.number && left.nonce === right.nonce;
}

function clip(part: SeqRange, range: SeqRange, reason: string): LostRange[] {
  const fromSeq = Math.max(part.fromSeq, range.fromSeq);
  const throughSeq = Math.min(part.throughSeq, range.throughSeq);
  return fromSeq <= throughSeq ? [{ fromSeq, throughSeq, reason }] : [];
}
