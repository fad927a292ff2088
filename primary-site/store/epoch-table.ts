import { EpochRanges, type RangeTables } from '../../broker/log/epoch-ranges.ts';
import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { EncodedFrame, Epoch, Lost, Status, StreamId } from '../../common/wire/frame.ts';

const tables: RangeTables = {
  epochs: 'epochs',
  insertEpoch:
    'INSERT INTO epochs (vm, kind, number, nonce) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
  stored: 'stored_ranges',
  lost: 'lost_ranges',
  lostAtUs: 'recorded_at_us',
};

interface StatusRow {
  readonly vm: string;
  readonly state: string;
  readonly watermarkUs: number | null;
  readonly producedAtUs: number;
  readonly epochId: number;
  readonly epochNumber: number;
  readonly seq: number;
  readonly arrivedAtUs: number;
}

/** Frames' bytes, and what streams say of themselves: how epochs begin and end, heads, VM states, losses. */
export class EpochTable {
  /** Which frames are, or ever were, here. */
  readonly ranges: EpochRanges;
  readonly #database: Database;
  readonly #insertFrame: Statement<[number, number, number, number, Uint8Array]>;
  readonly #writeStatus: Statement<[StatusRow]>;

  constructor(database: Database) {
    this.#database = database;
    this.ranges = new EpochRanges(database, tables);
    this.#insertFrame = database.prepare(
      'INSERT INTO frames (epoch_id, seq, last_position, arrived_at_us, bytes) VALUES (?, ?, ?, ?, ?)',
    );
    this.#writeStatus = database.prepare(
      `INSERT INTO vm_status (vm, state, watermark_us, produced_at_us, epoch_id, epoch_number, seq, arrived_at_us)
       VALUES (@vm, @state, @watermarkUs, @producedAtUs, @epochId, @epochNumber, @seq, @arrivedAtUs)
       ON CONFLICT DO UPDATE SET state = excluded.state, watermark_us = excluded.watermark_us,
         produced_at_us = excluded.produced_at_us, epoch_id = excluded.epoch_id,
         epoch_number = excluded.epoch_number, seq = excluded.seq, arrived_at_us = excluded.arrived_at_us
       WHERE CASE WHEN excluded.epoch_id IS epoch_id THEN excluded.seq >= seq
         ELSE excluded.epoch_number > epoch_number OR excluded.produced_at_us >= produced_at_us END`,
    );
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

  insertFrame(
    epochId: number,
    seq: number,
    frame: {
      readonly lastPosition: number;
      readonly arrivedAtUs: number;
      readonly bytes: Uint8Array;
    },
  ): void {
    this.#insertFrame.run(epochId, seq, frame.lastPosition, frame.arrivedAtUs, frame.bytes);
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

  /**
   * Frames can come in any order: an older status never replaces a newer one. Which is newer their places say within an epoch,
   * as the source's clock may have been set back; between two epochs the higher number or else that clock.
   */
  noteStatus(status: Status, { header }: EncodedFrame, epochId: number, arrivedAtUs: number): void {
    this.#writeStatus.run({
      vm: header.stream.vm,
      state: status.vmState,
      watermarkUs: status.watermarkUs,
      producedAtUs: header.producedAtUs,
      epochId,
      epochNumber: header.epoch.number,
      seq: header.seq,
      arrivedAtUs,
    });
  }

  /** The status stream says how far the data stream is, so that a last frame that is lost shows as a gap. */
  noteHead(stream: StreamId, head: { readonly epoch: Epoch; readonly seq: number }): void {
    this.#database
      .prepare<[number, number]>('UPDATE epochs SET head_seq = max(head_seq, ?) WHERE epoch_id = ?')
      .run(head.seq, this.ranges.idOf(stream, head.epoch));
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
}
