import type { FrameSink, StoredRange } from '../../broker/ports.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import { openDatabase, type Database } from '../../common/sqlite/database.ts';
import { migrate } from '../../common/sqlite/migrate.ts';
import { WalSync } from '../../common/sqlite/wal-sync.ts';
import { decodeFrame } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, Epoch, FrameRecord, StreamId } from '../../common/wire/frame.ts';
import { EpochTable } from './epoch-table.ts';
import { primaryStoreMigrations } from './primary-store-schema.ts';
import { ReadingReader } from './reading-reader.ts';
import { ReadingWriter } from './reading-writer.ts';
import { readVmStatuses, type VmStatus } from './stream-status.ts';

export interface PrimaryStoreOptions {
  readonly path: string;
  /** Data points, each as one specifier delivers it, that are taken; readings of further ones are dropped and counted. */
  readonly seriesMax: number;
}

interface OpenStore {
  readonly database: Database;
  readonly epochs: EpochTable;
  readonly writer: ReadingWriter;
  readonly reader: ReadingReader;
  readonly walSync: WalSync;
}

/**
 * The primary site's store: each frame once, its readings in the same transaction. Listeners hear of a commit at once;
 * `store` resolves when a power cut can't undo it any more, and only then is the frame acknowledged upstream.
 */
export class PrimaryStore implements Service, FrameSink {
  readonly name = 'primary-store';
  /** Readings: stored (forwarded), `dropped` beyond `seriesMax`; a frame that can't be decoded counts as one that failed. */
  readonly counters = new StageCounters();
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: PrimaryStoreOptions;
  readonly #listeners = new Set<() => void>();
  #open: OpenStore | undefined;

  constructor(deps: { readonly clock: Clock; readonly log: Log }, options: PrimaryStoreOptions) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
  }

  /** @throws DatabaseError when the file can't be used. */
  start(): Promise<void> {
    const database = openDatabase(this.#options.path, {
      synchronous: 'NORMAL',
      walAutoCheckpointPages: 4_096,
    });
    migrate(database, primaryStoreMigrations);
    this.#open = {
      database,
      epochs: new EpochTable(database),
      writer: new ReadingWriter(database, this.#options.seriesMax, this.counters),
      reader: new ReadingReader(database),
      walSync: new WalSync(this.#options.path),
    };
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    await open.walSync.close();
    open.database.close();
  }

  get reader(): ReadingReader {
    return this.#running.reader;
  }

  get database(): Database {
    return this.#running.database;
  }

  async store(frames: readonly EncodedFrame[]): Promise<void> {
    const { database, epochs, writer, walSync } = this.#running;
    try {
      database.transaction(() => {
        for (const frame of frames) this.#storeFrame(frame);
        epochs.writeRanges();
        writer.finish();
      })();
    } catch (cause) {
      epochs.forget();
      writer.forget();
      throw cause;
    }
    for (const listener of this.#listeners) listener();
    await walSync.sync();
  }

  async declareLost(
    stream: StreamId,
    lost: {
      readonly epoch: Epoch;
      readonly fromSeq: number;
      readonly throughSeq: number;
      readonly reason: string;
    },
  ): Promise<void> {
    this.#running.epochs.declareLost(stream, lost, this.#clock.wallUs());
    await this.#running.walSync.sync();
  }

  stored(stream: StreamId): readonly StoredRange[] {
    return this.#running.epochs.stored(stream);
  }

  /** What is known of each VM's streams. */
  vmStatuses(): readonly VmStatus[] {
    return readVmStatuses(this.database, this.#clock.wallUs());
  }

  /** Data points that retention removed, by their ids. */
  forgetSeries(seriesIds: readonly number[]): void {
    const { writer, reader, epochs } = this.#running;
    writer.forgetSeries(seriesIds);
    reader.forgetSeries(seriesIds);
    // Epochs may have gone with them; what is left is read again.
    epochs.forget();
  }

  /** Calls `listener` after each commit that may have brought readings. It must not throw. */
  onCommit(listener: () => void): Cancel {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  get #running(): OpenStore {
    if (this.#open === undefined) throw new Error('the primary store is not started');
    return this.#open;
  }

  #storeFrame(frame: EncodedFrame): void {
    const { epochs, writer } = this.#running;
    const { header } = frame;
    const epochId = epochs.idOf(header.stream, header.epoch);
    if (!epochs.addSeq(epochId, header.seq)) return;
    const decoded = decodeFrame(frame.bytes);
    if (decoded.ok) {
      for (const record of decoded.frame.records) this.#storeRecord(record, frame, epochId);
    } else {
      // The bytes are kept: they are what the origin committed, and a newer program may read them.
      this.counters.failAtOnce();
      this.#log.error('frame-not-decodable', { seq: header.seq, ...decoded.problem });
    }
    epochs.insertFrame(epochId, header.seq, writer.lastPosition, frame.bytes);
  }

  #storeRecord(record: FrameRecord, { header }: EncodedFrame, epochId: number): void {
    const { epochs, writer } = this.#running;
    switch (record.kind) {
      case 'delivery':
        // What intermediaries may see on the status stream is on the data stream as well.
        if (header.stream.kind === 'status') return;
        writer.write(header.stream.vm, record.delivery);
        this.counters.lagMs = (this.#clock.wallUs() - header.producedAtUs) / 1_000;
        return;
      case 'status':
        epochs.noteStatus(header.stream.vm, record, header.producedAtUs);
        if (record.head !== null) {
          epochs.noteHead({ vm: header.stream.vm, kind: 'data' }, record.head);
        }
        return;
      case 'lost':
        epochs.noteReportedLoss(header.stream.vm, record, header.producedAtUs);
        return;
      case 'epoch-closed':
        epochs.noteClosed(epochId, record.lastSeq);
        return;
      case 'epoch-opened':
        epochs.noteOpened(epochId, record.reason);
        return;
    }
  }
}
