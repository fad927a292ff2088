import type { StoredRange } from '../../broker/ports.ts';
import { RangeSet, type SeqRange } from '../../broker/range-set.ts';
import { epochKey } from '../../broker/stream-key.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, Lost, Status, StreamId } from '../../common/wire/frame.ts';

interface EpochEntry {
  readonly epochId: number;
  readonly ranges: RangeSet;
}

/**
 * Which frames are here: epochs, their ranges, frames' bytes, losses and VM states. Ranges are cached; after a
 * transaction that failed, `forget` makes the next call read them again.
 */
export class EpochTable {
  readonly #database: Database;
  readonly #byKey = new Map<string, EpochEntry>();
  readonly #byId = new Map<number, EpochEntry>();
  /** Seqs added in the open transaction, by epoch. */
  readonly #added = new Map<number, Set<number>>();
  readonly #insertFrame: Statement<[number, number, number, Uint8Array]>;
  readonly #dropRanges: Statement<[number, number, number]>;
  readonly #putRange: Statement<[number, number, number]>;

  constructor(database: Database) {
    this.#database = database;
    this.#insertFrame = database.prepare(
      'INSERT INTO frames (epoch_id, seq, last_position, bytes) VALUES (?, ?, ?, ?)',
    );
    this.#dropRanges = database.prepare(
      'DELETE FROM stored_ranges WHERE epoch_id = ? AND from_seq > ? AND from_seq <= ?',
    );
    this.#putRange = database.prepare('INSERT OR REPLACE INTO stored_ranges VALUES (?, ?, ?)');
  }

  idOf(stream: StreamId, epoch: Epoch): number {
    return this.#entry(stream, epoch).epochId;
  }

  /** Undefined for an epoch of which nothing was ever stored or said. */
  knownIdOf(stream: StreamId, epoch: Epoch): number | undefined {
    return this.#database
      .prepare<[string, string, number, string], { epoch_id: number }>(
        'SELECT epoch_id FROM epochs WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?',
      )
      .get(stream.vm, stream.kind, epoch.number, epoch.nonce)?.epoch_id;
  }

  /** The frame's bytes; undefined when it is not here, or not any more. */
  bytesOf(stream: StreamId, epoch: Epoch, seq: number): Uint8Array | undefined {
    const epochId = this.knownIdOf(stream, epoch);
    if (epochId === undefined) return undefined;
    return this.#database
      .prepare<[number, number], { bytes: Uint8Array }>(
        'SELECT bytes FROM frames WHERE epoch_id = ? AND seq = ?',
      )
      .get(epochId, seq)?.bytes;
  }

  /** A frame's readings came after it: it is kept as long as they are, and no position is given twice. */
  notePosition(frameId: number, lastPosition: number): void {
    this.#database
      .prepare<[number, number]>(
        `UPDATE frames SET last_position = ?
         WHERE frame_id = ? OR frame_id = (SELECT max(frame_id) FROM frames)`,
      )
      .run(lastPosition, frameId);
  }

  /** False when the frame is here already. */
  addSeq(epochId: number, seq: number): boolean {
    const entry = this.#byId.get(epochId);
    if (entry?.ranges.add(seq) !== true) return false;
    const added = this.#added.get(epochId) ?? new Set();
    this.#added.set(epochId, added.add(seq));
    return true;
  }

  insertFrame(epochId: number, seq: number, lastPosition: number, bytes: Uint8Array): void {
    this.#insertFrame.run(epochId, seq, lastPosition, bytes);
  }

  /** Writes the ranges that the transaction changed. A frame that was declared lost withdraws the declaration. */
  writeRanges(): void {
    for (const [epochId, seqs] of this.#added) {
      const ranges = this.#byId.get(epochId)?.ranges.ranges ?? [];
      for (const range of ranges) {
        if (!containsAny(range, seqs)) continue;
        this.#dropRanges.run(epochId, range.fromSeq, range.throughSeq);
        this.#putRange.run(epochId, range.fromSeq, range.throughSeq);
      }
      this.#withdrawLost(epochId, seqs);
    }
    this.#added.clear();
  }

  forget(): void {
    this.#byKey.clear();
    this.#byId.clear();
    this.#added.clear();
  }

  stored(stream: StreamId): StoredRange[] {
    return this.#database
      .prepare<
        [string, string],
        { number: number; nonce: string; from_seq: number; through_seq: number }
      >(
        `SELECT number, nonce, from_seq, through_seq FROM stored_ranges JOIN epochs USING (epoch_id)
         WHERE vm = ? AND kind = ? ORDER BY epoch_id, from_seq`,
      )
      .all(stream.vm, stream.kind)
      .map((row) => ({
        epoch: { number: row.number, nonce: row.nonce },
        fromSeq: row.from_seq,
        throughSeq: row.through_seq,
      }));
  }

  declareLost(
    stream: StreamId,
    lost: SeqRange & { readonly epoch: Epoch; readonly reason: string },
    recordedAtUs: number,
  ): void {
    const epochId = this.idOf(stream, lost.epoch);
    this.#database
      .prepare<[number, number, number, string, number]>(
        'INSERT OR REPLACE INTO lost_ranges VALUES (?, ?, ?, ?, ?)',
      )
      .run(epochId, lost.fromSeq, lost.throughSeq, lost.reason, recordedAtUs);
  }

  noteClosed(epochId: number, lastSeq: number): void {
    this.#database
      .prepare<[number, number]>('UPDATE epochs SET closed_seq = ? WHERE epoch_id = ?')
      .run(lastSeq, epochId);
  }

  noteOpened(epochId: number, reason: string): void {
    this.#database
      .prepare<[string, number]>('UPDATE epochs SET opened_reason = ? WHERE epoch_id = ?')
      .run(reason, epochId);
  }

  /** Frames can come in any order: an older status never replaces a newer one. */
  noteStatus(vm: string, status: Status, producedAtUs: number): void {
    this.#database
      .prepare<[string, string, number | null, number]>(
        `INSERT INTO vm_status VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state,
           watermark_us = excluded.watermark_us, produced_at_us = excluded.produced_at_us
         WHERE excluded.produced_at_us >= produced_at_us`,
      )
      .run(vm, status.vmState, status.watermarkUs, producedAtUs);
  }

  /** The status stream says how far the data stream is, so that a last frame that is lost shows as a gap. */
  noteHead(stream: StreamId, head: { readonly epoch: Epoch; readonly seq: number }): void {
    this.#database
      .prepare<[number, number]>('UPDATE epochs SET head_seq = max(head_seq, ?) WHERE epoch_id = ?')
      .run(head.seq, this.idOf(stream, head.epoch));
  }

  noteReportedLoss(vm: string, lost: Lost, producedAtUs: number): void {
    this.#database
      .prepare<[string, string, number, string, number]>(
        'INSERT INTO reported_losses (vm, place, count, reason, produced_at_us) VALUES (?, ?, ?, ?, ?)',
      )
      .run(vm, lost.where, lost.count, lost.reason, producedAtUs);
    this.#database
      .prepare<[string, string, number]>(
        `INSERT INTO loss_totals VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET count = count + excluded.count`,
      )
      .run(vm, lost.where, lost.count);
  }

  /** The declared ranges that a frame came for are cut around it. */
  #withdrawLost(epochId: number, seqs: ReadonlySet<number>): void {
    const declared = this.#database
      .prepare<
        [number],
        { from_seq: number; through_seq: number; reason: string; recorded_at_us: number }
      >('SELECT from_seq, through_seq, reason, recorded_at_us FROM lost_ranges WHERE epoch_id = ?')
      .all(epochId);
    for (const row of declared) {
      const range = { fromSeq: row.from_seq, throughSeq: row.through_seq };
      if (!containsAny(range, seqs)) continue;
      const left = new RangeSet([range]);
      for (const seq of seqs) left.deleteRange(seq, seq);
      this.#database
        .prepare<[number, number]>('DELETE FROM lost_ranges WHERE epoch_id = ? AND from_seq = ?')
        .run(epochId, row.from_seq);
      for (const part of left.ranges) {
        this.#database
          .prepare<[number, number, number, string, number]>(
            'INSERT INTO lost_ranges VALUES (?, ?, ?, ?, ?)',
          )
          .run(epochId, part.fromSeq, part.throughSeq, row.reason, row.recorded_at_us);
      }
    }
  }

  #entry(stream: StreamId, epoch: Epoch): EpochEntry {
    const key = epochKey(stream, epoch);
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const identity = [stream.vm, stream.kind, epoch.number, epoch.nonce] as const;
    this.#database
      .prepare<[string, string, number, string]>(
        'INSERT INTO epochs (vm, kind, number, nonce) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
      )
      .run(...identity);
    const row = this.#database
      .prepare<[string, string, number, string], { epoch_id: number }>(
        'SELECT epoch_id FROM epochs WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?',
      )
      .get(...identity);
    const epochId = row?.epoch_id ?? 0;
    const ranges = this.#database
      .prepare<[number], SeqRange>(
        'SELECT from_seq AS fromSeq, through_seq AS throughSeq FROM stored_ranges WHERE epoch_id = ?',
      )
      .all(epochId);
    const entry = { epochId, ranges: new RangeSet(ranges) };
    this.#byKey.set(key, entry);
    this.#byId.set(epochId, entry);
    return entry;
  }
}

function containsAny(range: SeqRange, seqs: ReadonlySet<number>): boolean {
  for (const seq of seqs) {
    if (range.fromSeq <= seq && seq <= range.throughSeq) return true;
  }
  return false;
}
