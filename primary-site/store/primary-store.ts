import type { ReturnedFrames } from '../../broker/log/epoch-ranges.ts';
import type { LossEvidenceRecord } from '../../broker/log/loss-evidence.ts';
import type { FrameSink, LostFrames, StoredRange } from '../../broker/ports.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { RecipientKey } from '../../common/sealing/recipients.ts';
import type { KeyStatement, VerifiedClaim } from '../../common/signing/key-statement.ts';
import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import type { LossRefusal } from '../../common/signing/loss-judge.ts';
import { isDatabaseCorrupt, type Database } from '../../common/sqlite/database.ts';
import { migrate } from '../../common/sqlite/migrate.ts';
import { openSoundDatabase } from '../../common/sqlite/set-aside.ts';
import { WalSync } from '../../common/sqlite/wal-sync.ts';
import { decodeFrame, decodeFrameHeader, type SealedBody } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame, FrameRecord, StreamId } from '../../common/wire/frame.ts';
import { IntegrityRecords, type IntegrityRecord } from '../sealing/integrity-records.ts';
import { OpenedFiles } from '../sealing/opened-files.ts';
import { SealedFrames } from '../sealing/sealed-frames.ts';
import { SignatureInspector, type SignaturePolicy } from '../sealing/signature-inspector.ts';
import { StatedKeys } from '../sealing/stated-keys.ts';
import { EpochTable } from './epoch-table.ts';
import { primaryStoreMigrations } from './primary-store-schema.ts';
import { ReadingReader } from './reading-reader.ts';
import { ReadingWriter } from './reading-writer.ts';
import { readVmStatuses, type VmStatus } from './stream-status.ts';

export interface PrimaryStoreOptions {
  readonly path: string;
  /** Data points, each as one specifier delivers it, that are taken; readings of further ones are dropped and counted. */
  readonly seriesMax: number;
  /** Private keys that open sealed frames and files; default: none. */
  readonly keys?: readonly RecipientKey[];
  /** Whether readings are made of what status streams deliver, for whoever takes no data streams; default: no. */
  readonly tapsStatus?: boolean;
  /** The file is damaged: nothing can be stored any more. */
  readonly onCorrupt?: (cause: unknown) => void;
}

/** Frames that waited for a key, opened in one transaction. */
const openedPerPassMax = 500;
/** How often it is looked whether too many frames wait, in frames that begin to. */
const waitsPerPrune = 1_000;

interface OpenStore {
  readonly database: Database;
  readonly epochs: EpochTable;
  readonly writer: ReadingWriter;
  readonly reader: ReadingReader;
  readonly walSync: WalSync;
  readonly integrity: IntegrityRecords;
  readonly statedKeys: StatedKeys;
  readonly sealed: SealedFrames;
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
  readonly #files: OpenedFiles;
  #open: OpenStore | undefined;
  #waitCount = 0;
  #isOpeningDue = false;

  constructor(deps: { readonly clock: Clock; readonly log: Log }, options: PrimaryStoreOptions) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    this.#files = new OpenedFiles(options.keys ?? []);
  }

  /** @throws DatabaseError when the file can't be used. */
  start(): Promise<void> {
    const database = openSoundDatabase(
      { clock: this.#clock, log: this.#log },
      this.#options.path,
      { synchronous: 'NORMAL', walAutoCheckpointPages: 4_096 },
      (opened) => {
        migrate(opened, primaryStoreMigrations);
      },
    );
    const integrity = new IntegrityRecords(database);
    this.#open = {
      database,
      epochs: new EpochTable(database),
      writer: new ReadingWriter(database, this.#options.seriesMax, this.counters),
      reader: new ReadingReader(database),
      walSync: new WalSync(this.#options.path),
      integrity,
      statedKeys: new StatedKeys(database, integrity),
      sealed: new SealedFrames(database, this.#options.keys ?? []),
    };
    this.#scheduleOpening();
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
    const { epochs, walSync } = this.#running;
    let returned: readonly ReturnedFrames[] = [];
    this.#commit(() => {
      for (const frame of frames) this.#storeFrame(frame);
      returned = epochs.ranges.writeRanges();
    });
    for (const { stream, epoch, frameCount, declaredBy } of returned) {
      const place = { vm: stream.vm, stream: stream.kind, epoch: epoch.number };
      this.#log.info('loss-withdrawn', { ...place, frameCount, declaredBy });
    }
    await walSync.sync();
  }

  async declareLost(stream: StreamId, lost: LostFrames): Promise<void> {
    const { epochs, integrity, walSync } = this.#running;
    this.#commit(() => {
      epochs.ranges.declareLost(stream, lost, this.#clock.wallUs());
      // An unsigned answer that was quicker than the signed one is no longer a finding.
      if (lost.proof !== null) integrity.withdraw({ stream, epoch: lost.epoch }, 'loss-unsigned');
    });
    await walSync.sync();
  }

  /** A neighbour's declaration that does not count: the frames stay missing. */
  noteLossRefused({ stream, epoch, fromSeq, throughSeq }: LossClaim, refusal: LossRefusal): void {
    const { integrity } = this.#running;
    integrity.note({ stream, epoch, seq: fromSeq }, refusal, this.#clock.wallUs(), throughSeq);
    const place = { vm: stream.vm, stream: stream.kind, epoch: epoch.number };
    this.#log.warn('loss-refused', { ...place, fromSeq, throughSeq, refusal });
  }

  /** What neighbours declared lost under their signatures, the newest first. */
  lossEvidence(limit: number): readonly LossEvidenceRecord[] {
    return this.#running.epochs.ranges.evidence.list(limit);
  }

  stored(stream: StreamId): readonly StoredRange[] {
    return this.#running.epochs.ranges.stored(stream);
  }

  /** Judges frames before the consumer takes them in. */
  inspector(policy: SignaturePolicy): SignatureInspector {
    return new SignatureInspector(
      {
        keyOf: ({ header }) => this.#running.statedKeys.keyOf(header.stream, header.epoch),
        isAuthentic: ({ sealed }) => sealed === null || this.#isAuthentic(sealed),
        storedBytes: ({ header }) =>
          this.#running.epochs.bytesOf(header.stream, header.epoch, header.seq),
        note: ({ header }, finding) => {
          this.#running.integrity.note(header, finding, this.#clock.wallUs());
          this.#log.warn('frame-not-trusted', {
            vm: header.stream.vm,
            stream: header.stream.kind,
            epoch: header.epoch.number,
            seq: header.seq,
            finding,
          });
        },
      },
      policy,
    );
  }

  /** Takes what the neighbour stated of an epoch's key. False when another key was stated before: that is recorded. */
  acceptKeyStatement(claim: VerifiedClaim): boolean {
    return this.#running.statedKeys.accept(claim, this.#clock.wallUs());
  }

  /** Whether exactly this key was stated for the epoch before. */
  hasKeyStatement(statement: KeyStatement): boolean {
    return this.#running.statedKeys.has(statement);
  }

  /** What was refused or found wrong, newest first. */
  integrity(): readonly IntegrityRecord[] {
    return this.#running.integrity.list();
  }

  /** Frames that are stored and wait for a key to be opened. */
  waitingFrames(): number {
    return this.#running.sealed.waitingCount();
  }

  /** Envelopes in `encrypted/` files. */
  get fileCounters(): StageCounters {
    return this.#files.counters;
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
    epochs.ranges.forget();
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

  #commit(work: () => void): void {
    const { database, epochs, writer, sealed } = this.#running;
    try {
      database.transaction(() => {
        work();
        writer.finish();
      })();
    } catch (cause) {
      epochs.ranges.forget();
      writer.forget();
      sealed.forget();
      if (isDatabaseCorrupt(cause)) this.#options.onCorrupt?.(cause);
      throw cause;
    }
    for (const listener of this.#listeners) listener();
  }

  #storeFrame(frame: EncodedFrame): void {
    const { epochs, writer, sealed } = this.#running;
    const { header } = frame;
    const epochId = epochs.ranges.idOf(header.stream, header.epoch);
    if (!epochs.ranges.addSeq(epochId, header.seq)) return;
    const keyId = this.#readFrame(frame, epochId);
    epochs.insertFrame(epochId, header.seq, {
      lastPosition: writer.lastPosition,
      arrivedAtUs: this.#clock.wallUs(),
      bytes: frame.bytes,
    });
    if (keyId === null) return;
    sealed.wait(epochId, header.seq, keyId);
    this.#waitCount += 1;
    if (this.#waitCount % waitsPerPrune === 0) this.#pruneWaiting();
  }

  /** Makes readings of a frame's records; returns the key that it has to wait for, null when it has not. */
  #readFrame(frame: EncodedFrame, epochId: number): Uint8Array | null {
    const { sealed, integrity } = this.#running;
    let keyId: Uint8Array | null = null;
    const decoded = decodeFrame(frame.bytes, (body) => {
      sealed.keepEnvelope(epochId, body);
      const opened = sealed.open(epochId, body);
      ({ keyId } = body);
      if (opened.ok && body.keyEnvelope !== null) this.#scheduleOpening();
      return opened;
    });
    if (decoded.ok) {
      for (const record of decoded.frame.records) this.#storeRecord(record, frame, epochId);
      return null;
    }
    if (decoded.problem.code === 'key-unknown') return keyId;
    if (decoded.problem.code === 'not-authentic') {
      integrity.note(frame.header, 'altered', this.#clock.wallUs());
    }
    // The bytes are kept: they are what the origin committed, and a newer program may read them.
    this.counters.failAtOnce();
    this.#log.error('frame-not-decodable', { seq: frame.header.seq, ...decoded.problem });
    return null;
  }

  #isAuthentic(body: SealedBody): boolean {
    const { epochs, sealed } = this.#running;
    const epochId = epochs.knownIdOf(body.header.stream, body.header.epoch);
    if (epochId === undefined) return true;
    const opened = sealed.open(epochId, body);
    return opened.ok || opened.code === 'key-unknown';
  }

  /** A key may have come for frames that wait: they are opened in pieces, between what arrives. */
  #scheduleOpening(): void {
    if (this.#isOpeningDue) return;
    this.#isOpeningDue = true;
    setImmediate(() => {
      this.#isOpeningDue = false;
      if (this.#open !== undefined) this.#openWaiting();
    });
  }

  #openWaiting(): void {
    const { epochs, writer, sealed } = this.#running;
    let openedCount = 0;
    try {
      this.#commit(() => {
        for (const { epochId, keyId } of sealed.openable()) {
          const left = openedPerPassMax - openedCount;
          for (const { frameId, bytes } of sealed.take(epochId, keyId, left)) {
            const header = decodeFrameHeader(bytes);
            if (header.ok) this.#readFrame({ header: header.header, bytes }, epochId);
            epochs.notePosition(frameId, writer.lastPosition);
            openedCount += 1;
          }
        }
      });
    } catch (cause) {
      this.#log.error('sealed-frames-not-opened', { cause: String(cause) });
      return;
    }
    if (openedCount === 0) return;
    this.#log.info('sealed-frames-opened', { frameCount: openedCount });
    this.#scheduleOpening();
  }

  #pruneWaiting(): void {
    const frameCount = this.#running.sealed.prune();
    if (frameCount === 0) return;
    this.counters.accepted += frameCount;
    this.counters.dropped += frameCount;
    this.#log.error('sealed-frames-dropped', { frameCount });
  }

  #storeRecord(record: FrameRecord, frame: EncodedFrame, epochId: number): void {
    const { epochs, writer } = this.#running;
    const { header } = frame;
    switch (record.kind) {
      case 'delivery':
        // What intermediaries may see on the status stream is on the data stream as well.
        if (header.stream.kind === 'status' && this.#options.tapsStatus !== true) return;
        writer.write(header.stream.vm, this.#files.open(record.delivery));
        this.counters.lagMs = (this.#clock.wallUs() - header.producedAtUs) / 1_000;
        return;
      case 'status':
        epochs.noteStatus(record, frame, epochId, this.#clock.wallUs());
        if (record.head !== null && this.#options.tapsStatus !== true) {
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
