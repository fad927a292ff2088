import type { Clock } from '../../common/runtime/clock.ts';
import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import { firstPreviousHash } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';
import { EpochRanges, type RangeTables, type ReturnedFrames } from '../log/epoch-ranges.ts';
import type { FrameLog, LogEpoch, LoggedFrame, LostRange } from '../log/frame-log.ts';
import { LoggedFrames } from '../log/logged-frames.ts';
import type { LostFrames, StoredRange } from '../ports.ts';
import { RangeSet, type SeqRange } from '../range-set.ts';
import { EvictedFrames } from './evicted-frames.ts';

const tables: RangeTables = {
  epochs: 'stream_log_epochs',
  insertEpoch: `INSERT INTO stream_log_epochs (vm, kind, number, nonce, last_seq, last_hash, closed, bytes)
    VALUES (?, ?, ?, ?, 0, x'${Buffer.from(firstPreviousHash).toString('hex')}', 0, 0) ON CONFLICT DO NOTHING`,
  stored: 'relay_stored_ranges',
  lost: 'stream_log_lost',
  lostAtUs: 'declared_at_us',
};

/** Frames that are fetched again at a time for one query. */
const fetchedAgainMax = 512;
/** How many times as many are asked for where the last were all lost. */
const fetchedAgainFactorMax = 32;
/** What a frame is taken for when no frame of its epoch is here. */
const frameBytesUnknown = 16_384;

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
  /** What had to make room. */
  readonly evicted: EvictedFrames;
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #ranges: EpochRanges;
  /** The neighbour of each epoch that was looked at, by the epoch's row id. */
  readonly #sources = new Map<number, string>();
  #fetchedAgainFactor = 1;
  readonly #insertFrame: Statement<[number, number, number, Uint8Array]>;
  readonly #advanceEpoch: Statement<[number, number, number]>;
  readonly #frames: LoggedFrames;
  /** Run for each epoch whose watermark the final reader raises. */
  readonly #findSource: Statement<[number], { relation: string }>;
  readonly #readCovered: Statement<[string, string], SeqRange & Epoch>;

  constructor(deps: { readonly database: Database; readonly clock: Clock }) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#ranges = new EpochRanges(deps.database, tables);
    this.evicted = new EvictedFrames(deps.database);
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
    this.#readCovered = deps.database.prepare(
      `SELECT number, nonce, from_seq AS fromSeq, through_seq AS throughSeq FROM (
         SELECT epoch_id, from_seq, through_seq FROM relay_stored_ranges
         UNION ALL SELECT epoch_id, from_seq, through_seq FROM relay_evicted)
       JOIN stream_log_epochs USING (epoch_id) WHERE vm = ? AND kind = ? ORDER BY epoch_id, from_seq`,
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

  /**
   * Commits `frames`, each once, in one transaction; a frame that was declared lost withdraws the declaration: these are
   * returned.
   */
  store(frames: readonly EncodedFrame[]): readonly ReturnedFrames[] {
    const nowUs = this.#clock.wallUs();
    return this.#run(() => {
      const advanced = new Map<number, { lastSeq: number; bytes: number }>();
      for (const { header, bytes } of frames) {
        const epochId = this.#ranges.idOf(header.stream, header.epoch);
        if (!this.#ranges.addSeq(epochId, header.seq)) continue;
        this.#insertFrame.run(epochId, header.seq, nowUs, bytes);
        this.evicted.forget(epochId, { fromSeq: header.seq, throughSeq: header.seq });
        const before = advanced.get(epochId) ?? { lastSeq: 0, bytes: 0 };
        advanced.set(epochId, {
          lastSeq: Math.max(before.lastSeq, header.seq),
          bytes: before.bytes + bytes.length,
        });
      }
      if (advanced.size > 0) this.#fetchedAgainFactor = 1;
      for (const [epochId, { lastSeq, bytes }] of advanced) {
        this.#advanceEpoch.run(lastSeq, bytes, epochId);
      }
      return this.#ranges.writeRanges();
    });
  }

  /**
   * Makes durable that the neighbour has given up a range, and returns what is declared downstream: what made room here
   * while the neighbour still had it was given up by this relay, whatever the neighbour's own reason is.
   */
  declareLost(stream: StreamId, lost: LostFrames): readonly LossClaim[] {
    return this.#run(() => {
      const nowUs = this.#clock.wallUs();
      const epochId = this.#ranges.idOf(stream, lost.epoch);
      for (const evicted of this.evicted.ranges(epochId, lost)) {
        const { fromSeq, throughSeq, reason } = evicted;
        const own = { fromSeq, throughSeq, reason, declaredAtUs: nowUs };
        this.#ranges.declareLost(stream, { ...lost, ...own }, nowUs);
        this.evicted.forget(epochId, evicted);
        this.#fetchedAgainFactor = Math.min(2 * this.#fetchedAgainFactor, fetchedAgainFactorMax);
      }
      this.#ranges.declareLost(stream, lost, nowUs);
      this.#advanceEpoch.run(lost.throughSeq, 0, epochId);
      const { epoch } = lost;
      // With what borders on it: whoever hears of it piece by piece has one range in the end.
      const around = { fromSeq: lost.fromSeq - 1, throughSeq: lost.throughSeq + 1 };
      return this.#declaredIn(epochId, around).map((part) => ({ stream, epoch, ...part }));
    });
  }

  /**
   * Parts of `range` that were here and are no more, the first of them, of `bytesMax` bytes as far as that can be told;
   * ascending. They are not lost as long as somebody may have them.
   */
  goneIn(stream: StreamId, epoch: Epoch, range: SeqRange, bytesMax: number): readonly SeqRange[] {
    const epochId = this.#frames.epochId(stream, epoch);
    if (epochId === undefined) return [];
    return this.#run(() => {
      const pruned = this.#prunedIn(epochId, stream, epoch, range);
      for (const part of pruned) this.evicted.note(epochId, part, 'pruned-after-stored');
      if (pruned.length > 0) this.#ranges.forget();
      const framesMax = Math.max(1, Math.floor(bytesMax / this.#frameBytes(epochId)));
      const again = Math.min(framesMax, fetchedAgainMax) * this.#fetchedAgainFactor;
      return firstOf(this.evicted.ranges(epochId, range), again);
    });
  }

  /** There is nobody to fetch from what made room here: it is lost. */
  giveUp(stream: StreamId, epoch: Epoch, range: SeqRange): void {
    const epochId = this.#frames.epochId(stream, epoch);
    if (epochId === undefined) return;
    const declaredAtUs = this.#clock.wallUs();
    for (const { reason, ...part } of this.evicted.ranges(epochId, range)) {
      const own = { reason, declaredAtUs, declaredBy: null, proof: null };
      this.declareLost(stream, { epoch, ...part, ...own });
    }
  }

  /** Ranges that were ever made durable here, pruned or not: nobody need ask for them. */
  stored(stream: StreamId): readonly StoredRange[] {
    return this.#readCovered.all(stream.vm, stream.kind).map(({ number, nonce, ...range }) => ({
      epoch: { number, nonce },
      ...range,
    }));
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
    const declaredAtUs = this.#clock.wallUs();
    const reason = 'pruned-after-stored';
    const pruned = this.#prunedIn(epochId, stream, epoch, range).map((part): LostRange => ({
      ...part,
      reason,
      declaredAtUs,
    }));
    return [...this.#declaredIn(epochId, range), ...pruned].toSorted(
      (left, right) => left.fromSeq - right.fromSeq,
    );
  }

  /** Whole ones that reach into `range`; what borders on each other for one reason is one. */
  #declaredIn(epochId: number, range: SeqRange): LostRange[] {
    const declared: { -readonly [Key in keyof LostRange]: LostRange[Key] }[] = [];
    for (const { fromSeq, throughSeq, reason, atUs: declaredAtUs } of this.#ranges.lost(epochId)) {
      const last = declared.at(-1);
      if (last?.throughSeq === fromSeq - 1 && last.reason === reason) {
        last.throughSeq = throughSeq;
        last.declaredAtUs = Math.max(last.declaredAtUs, declaredAtUs);
      } else {
        declared.push({ fromSeq, throughSeq, reason, declaredAtUs });
      }
    }
    return declared.filter((lost) => clip(lost, range) !== undefined);
  }

  /** What was stored here once and is no more: it was pruned after every subscriber had it. */
  #prunedIn(epochId: number, stream: StreamId, epoch: Epoch, range: SeqRange): readonly SeqRange[] {
    const gone = new RangeSet(
      this.#ranges
        .stored(stream)
        .filter((stored) => isSameEpoch(stored.epoch, epoch))
        .flatMap((stored) => clip(stored, range) ?? []),
    );
    for (const kept of this.#keptIn(epochId, range)) {
      gone.deleteRange(kept.fromSeq, kept.throughSeq);
    }
    return gone.ranges;
  }

  /** About how large a frame of the epoch is. */
  #frameBytes(epochId: number): number {
    const average = this.#database
      .prepare<[number], number | null>(
        `SELECT avg(length(bytes)) FROM (
           SELECT bytes FROM stream_log_frames WHERE epoch_id = ? ORDER BY seq DESC LIMIT 16)`,
      )
      .pluck()
      .get(epochId);
    return average ?? frameBytesUnknown;
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

  /** In one transaction; nothing is remembered of one that failed. */
  #run<Result>(work: () => Result): Result {
    try {
      return this.#database.transaction(work).immediate();
    } catch (cause) {
      this.forget();
      throw cause;
    }
  }
}

function isSameEpoch(left: Epoch, right: Epoch): boolean {
  return left.number === right.number && left.nonce === right.nonce;
}

function clip(part: SeqRange, range: SeqRange): SeqRange | undefined {
  const fromSeq = Math.max(part.fromSeq, range.fromSeq);
  const throughSeq = Math.min(part.throughSeq, range.throughSeq);
  return fromSeq <= throughSeq ? { fromSeq, throughSeq } : undefined;
}

function firstOf(ranges: readonly SeqRange[], framesMax: number): readonly SeqRange[] {
  const first: SeqRange[] = [];
  let left = framesMax;
  for (const { fromSeq, throughSeq } of ranges) {
    if (left <= 0) break;
    first.push({ fromSeq, throughSeq: Math.min(throughSeq, fromSeq + left - 1) });
    left -= throughSeq - fromSeq + 1;
  }
  return first;
}
