import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { SeqRange } from '../range-set.ts';
import type { LoggedFrame } from './frame-log.ts';

const framesPerReadMax = 4_096;

/** Reads the frames of a stream log's tables, whoever wrote them. */
export class LoggedFrames {
  readonly #findEpoch: Statement<[string, string, number, string], { epoch_id: number }>;
  readonly #readFrames: Statement<[number, number, number], LoggedFrame>;

  constructor(database: Database) {
    this.#findEpoch = database.prepare(
      'SELECT epoch_id FROM stream_log_epochs WHERE vm = ? AND kind = ? AND number = ? AND nonce = ?',
    );
    this.#readFrames = database.prepare(
      `SELECT seq, bytes FROM stream_log_frames WHERE epoch_id = ? AND seq BETWEEN ? AND ?
       ORDER BY seq LIMIT ${framesPerReadMax}`,
    );
  }

  /** The row id of an epoch; undefined for one that the log does not know. */
  epochId(stream: StreamId, epoch: Epoch): number | undefined {
    return this.#findEpoch.get(stream.vm, stream.kind, epoch.number, epoch.nonce)?.epoch_id;
  }

  /** See FrameLog.read. */
  read(stream: StreamId, epoch: Epoch, range: SeqRange, bytesMax: number): LoggedFrame[] {
    const epochId = this.epochId(stream, epoch);
    if (epochId === undefined) return [];
    const frames: LoggedFrame[] = [];
    let bytes = 0;
    for (const frame of this.#readFrames.iterate(epochId, range.fromSeq, range.throughSeq)) {
      bytes += frame.bytes.length;
      if (frames.length > 0 && bytes > bytesMax) break;
      frames.push(frame);
    }
    return frames;
  }
}
