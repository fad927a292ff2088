import type { Clock } from '../../common/runtime/clock.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { StreamId, StreamKind } from '../../common/wire/frame.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';
import type { GivenUpFrames } from './frame-log.ts';
import type { LogCursors } from './log-cursors.ts';
import { LogLosses } from './log-losses.ts';

export interface LogRetentionOptions {
  /** Frames older than this go, stored or not. */
  readonly ageMaxMs: number;
  /** Encoded frames in all; above it the log is under pressure. */
  readonly bytesMax: number;
  /**
   * What is given up of what nobody has stored; default: the oldest. A log whose frames can be fetched again gives up the
   * newest, which its neighbour keeps for longest: readers go on from the oldest.
   */
  readonly givesUp?: 'oldest' | 'newest';
}

/** What one pass did. `lostFrames` were needed by a subscriber: {@link GivenUpFrames} has heard of each. */
export interface PruneResult {
  readonly prunedFrames: number;
  readonly lostFrames: number;
  /** More is to be pruned: call again soon. */
  readonly more: boolean;
}

/** How far below the bound a pass goes, so that it is not needed again at once. */
const targetRatio = 0.9;
const scanFramesMax = 1_024;
/** Frames of one VM that go before it is looked again whose share is largest. */
const framesPerTurnMax = 64;
/** A pass removes this many frames at most, so that the log's owner is not held up. */
const framesPerPassMax = 4 * scanFramesMax;
/** Empty epochs that are kept for each stream, so that a late reader learns what it missed. */
const emptyEpochsMax = 256;

interface Candidate {
  readonly frame_id: number;
  readonly epoch_id: number;
  readonly seq: number;
  readonly produced_at_us: number;
  readonly size_bytes: number;
}

/**
 * Prunes a stream log in this order until age and bytes are within their bounds:
 *
 *   0. what nobody is to have (`isWanted`), as one that asked for it has ended that
 *   1. what every subscriber's final reader has stored
 *   2. what every subscriber itself (the next hop) has stored
 *   3. given up with a durable record, never in silence: what is too old; then the oldest (or newest) of the VM that has
 *      most in the log, so that one VM's flood pushes out no frame of another
 *
 * Without subscribers nothing counts as stored; what the final reader has counts for the next hop too. Frames of an epoch go
 * from its beginning only, unless the newest are given up.
 */
export class LogRetention {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #cursors: LogCursors;
  readonly #isWanted: (stream: StreamId) => boolean;
  readonly #givenUp: GivenUpFrames;
  readonly #options: LogRetentionOptions;
  readonly #oldestOfAll: Statement<[], Candidate>;
  readonly #oldestOfEpoch: Statement<[number, number], Candidate>;
  readonly #nextEpochOf: Statement<[string], { epoch_id: number }>;
  readonly #nextToPrune: Statement<[number], Candidate>;
  readonly #delete: Statement<[number]>;
  readonly #shrink: Statement<[number, number]>;

  constructor(
    deps: {
      readonly database: Database;
      readonly clock: Clock;
      readonly cursors: LogCursors;
      /** Without it somebody is to have every stream. */
      readonly isWanted?: (stream: StreamId) => boolean;
      /** Default: they are declared lost. */
      readonly givenUp?: GivenUpFrames;
    },
    options: LogRetentionOptions,
  ) {
    this.#isWanted = deps.isWanted ?? (() => true);
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#cursors = deps.cursors;
    this.#givenUp = deps.givenUp ?? new LogLosses(deps);
    this.#options = options;
    const columns = 'frame_id, epoch_id, seq, produced_at_us, length(bytes) AS size_bytes';
    this.#oldestOfAll = deps.database.prepare(
      `SELECT ${columns} FROM stream_log_frames ORDER BY frame_id LIMIT ${scanFramesMax}`,
    );
    this.#oldestOfEpoch = deps.database.prepare(
      `SELECT ${columns} FROM stream_log_frames WHERE epoch_id = ? AND seq <= ?
       ORDER BY seq LIMIT ${scanFramesMax}`,
    );
    const isNewest = options.givesUp === 'newest';
    this.#nextEpochOf = deps.database.prepare(
      `SELECT epoch_id, (SELECT frame_id FROM stream_log_frames AS frame
                         WHERE frame.epoch_id = epoch.epoch_id ORDER BY seq LIMIT 1) AS first
       FROM stream_log_epochs AS epoch WHERE vm = ? AND bytes > 0 AND first IS NOT NULL
       ORDER BY ${isNewest ? 'epoch_id DESC' : 'first'} LIMIT 1`,
    );
    this.#nextToPrune = deps.database.prepare(
      `SELECT ${columns} FROM stream_log_frames WHERE epoch_id = ?
       ORDER BY seq ${isNewest ? 'DESC' : 'ASC'} LIMIT ${framesPerTurnMax}`,
    );
    this.#delete = deps.database.prepare('DELETE FROM stream_log_frames WHERE frame_id = ?');
    this.#shrink = deps.database.prepare(
      'UPDATE stream_log_epochs SET bytes = bytes - ? WHERE epoch_id = ?',
    );
  }

  /** Encoded frames in the log, in bytes. */
  logBytes(): number {
    const row = this.#database
      .prepare<[], { bytes: number }>('SELECT total(bytes) AS bytes FROM stream_log_epochs')
      .get();
    return row?.bytes ?? 0;
  }

  /** One bounded pass, in a transaction of its own. */
  prune(): PruneResult {
    return this.#database.transaction(() => this.#prune()).immediate();
  }

  #prune(): PruneResult {
    const pass = new Pass(this.logBytes(), this.#options, this.#clock.wallUs(), this.#givenUp);
    for (const { epochId, throughSeq } of this.#unwanted()) {
      this.#sweep(pass, false, () => this.#oldestOfEpoch.all(epochId, throughSeq));
    }
    for (const storedBy of ['final-reader', 'next-hop'] as const) {
      for (const { epochId, throughSeq, bytes } of this.#cursors.storedByAll(storedBy)) {
        if (bytes === 0) continue;
        this.#sweep(pass, false, () => this.#oldestOfEpoch.all(epochId, throughSeq));
      }
    }
    // What is stored and has to go has gone by now, or the pass has done enough.
    this.#sweep(pass, true, () => this.#oldestOfAll.all(), 'too-old');
    this.#sweepLargest(pass);
    pass.noteGivenUp();
    this.#dropEmptyEpochs();
    return {
      prunedFrames: pass.prunedFrames,
      lostFrames: pass.lostFrames,
      more: pass.isFull,
    };
  }

  #unwanted(): { readonly epochId: number; readonly throughSeq: number }[] {
    return this.#database
      .prepare<[], { epochId: number; throughSeq: number; vm: string; kind: StreamKind }>(
        `SELECT epoch_id AS epochId, last_seq AS throughSeq, vm, kind FROM stream_log_epochs
         WHERE bytes > 0 ORDER BY epoch_id`,
      )
      .all()
      .filter(({ vm, kind }) => !this.#isWanted({ vm: vmIdSchema.parse(vm), kind }));
  }

  /** Removes what `oldest` gives, again and again, until a frame may stay or there is none. */
  #sweep(
    pass: Pass,
    isLoss: boolean,
    oldest: () => readonly Candidate[],
    what: 'too-old' | 'all' = 'all',
  ): void {
    for (;;) {
      const frames = oldest();
      for (const frame of frames) {
        if (pass.isFull) return;
        if (!pass.isTooOld(frame) && (what === 'too-old' || !pass.isTooMuch)) return;
        this.#remove(pass, frame, isLoss);
      }
      if (frames.length < scanFramesMax) return;
    }
  }

  /** Each VM keeps at least its equal share of the bound: whoever has most loses first. */
  #sweepLargest(pass: Pass): void {
    if (!pass.isTooMuch) return;
    const shares = this.#bytesByVm();
    while (pass.isTooMuch && !pass.isFull) {
      const vm = largestOf(shares);
      const epoch = vm === undefined ? undefined : this.#nextEpochOf.get(vm);
      if (vm === undefined || epoch === undefined) return;
      for (const frame of this.#nextToPrune.all(epoch.epoch_id)) {
        if (pass.isFull || !pass.isTooMuch) return;
        this.#remove(pass, frame, true);
        shares.set(vm, (shares.get(vm) ?? 0) - frame.size_bytes);
      }
    }
  }

  #bytesByVm(): Map<string, number> {
    const rows = this.#database
      .prepare<[], { vm: string; bytes: number }>(
        'SELECT vm, total(bytes) AS bytes FROM stream_log_epochs WHERE bytes > 0 GROUP BY vm',
      )
      .all();
    return new Map(rows.map(({ vm, bytes }) => [vm, bytes]));
  }

  #remove(pass: Pass, frame: Candidate, isLoss: boolean): void {
    this.#delete.run(frame.frame_id);
    this.#shrink.run(frame.size_bytes, frame.epoch_id);
    pass.removed(frame, isLoss);
  }

  #dropEmptyEpochs(): void {
    this.#database
      .prepare(
        `DELETE FROM stream_log_epochs WHERE bytes = 0 AND epoch_id IN (
           SELECT epoch_id FROM (
             SELECT epoch_id, row_number() OVER (PARTITION BY vm, kind ORDER BY epoch_id DESC) AS age
             FROM stream_log_epochs) WHERE age > ${emptyEpochsMax})`,
      )
      .run();
  }
}

/** What is still to be done in one pass over the log. */
class Pass {
  prunedFrames = 0;
  lostFrames = 0;
  readonly #oldestUs: number;
  readonly #targetBytes: number;
  readonly #givenUp: GivenUpFrames;
  #bytes: number;
  /** Given up, one after another, and not noted yet. */
  #run:
    | {
        readonly epochId: number;
        readonly reason: LossReason;
        fromSeq: number;
        throughSeq: number;
      }
    | undefined;

  constructor(bytes: number, options: LogRetentionOptions, nowUs: number, givenUp: GivenUpFrames) {
    this.#bytes = bytes;
    this.#givenUp = givenUp;
    this.#oldestUs = nowUs - options.ageMaxMs * 1_000;
    this.#targetBytes =
      bytes > options.bytesMax ? options.bytesMax * targetRatio : options.bytesMax;
  }

  /** It has removed as much as one pass may. */
  get isFull(): boolean {
    return this.prunedFrames >= framesPerPassMax;
  }

  /** Frames come in the order of their arrival, so the first that is neither too old nor too much ends a sweep. */
  isTooOld(frame: Candidate): boolean {
    return frame.produced_at_us < this.#oldestUs;
  }

  get isTooMuch(): boolean {
    return this.#bytes > this.#targetBytes;
  }

  removed(frame: Candidate, isLoss: boolean): void {
    this.#bytes -= frame.size_bytes;
    this.prunedFrames += 1;
    if (!isLoss) return;
    this.lostFrames += 1;
    const reason = this.isTooOld(frame) ? 'log-too-old' : 'log-full';
    const { epoch_id: epochId, seq } = frame;
    const run = this.#run;
    if (run?.epochId === epochId && run.reason === reason) {
      const isNext = run.throughSeq === seq - 1;
      const isBefore = run.fromSeq === seq + 1;
      if (isNext) run.throughSeq = seq;
      if (isBefore) run.fromSeq = seq;
      if (isNext || isBefore) return;
    }
    this.noteGivenUp();
    this.#run = { epochId, reason, fromSeq: seq, throughSeq: seq };
  }

  noteGivenUp(): void {
    if (this.#run !== undefined) this.#givenUp.note(this.#run.epochId, this.#run, this.#run.reason);
    this.#run = undefined;
  }
}

function largestOf(shares: ReadonlyMap<string, number>): string | undefined {
  let largest: string | undefined;
  let most = 0;
  for (const [vm, bytes] of shares) {
    if (bytes <= most) continue;
    largest = vm;
    most = bytes;
  }
  return largest;
}
