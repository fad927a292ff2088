import type { EpochReason, FrameAppender } from '../../broker/ports.ts';
import { StageCounters, type StageCounts } from '../../common/runtime/stage-counters.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { Delivery, Measurement } from '../../common/wire/delivery.ts';
import type {
  EncodedFrame,
  Epoch,
  FrameRecord,
  StreamId,
  VmState,
} from '../../common/wire/frame.ts';
import type { VmDescriptor, VmId } from '../../common/wire/vm-descriptor.ts';
import type { EngineBounds } from '../specifiers/engine-bounds.ts';
import {
  SpecifierEngine,
  type EngineInput,
  type MonitoringPlan,
} from '../specifiers/specifier-engine.ts';
import { correctTime, type GuestClock } from '../vm/guest-clock.ts';
import {
  guestAreas,
  type GuestArea,
  type GuestCursor,
  type GuestRowBatch,
} from '../vm/guest-listener.ts';
import { RowMeasurements } from '../vm/row-measurements.ts';
import { CursorStore } from './cursor-store.ts';
import { EngineStore, type StoredEngine } from './engine-store.ts';
import { FramePacker, VisibleDeliveries } from './frame-packer.ts';

/** What waits for the next commit, in the order of arrival. */
export type OriginEvent =
  | { readonly kind: 'rows'; readonly batch: GuestRowBatch }
  | { readonly kind: 'generation'; readonly area: GuestArea; readonly generation: string }
  | { readonly kind: 'watermark'; readonly guestTimeUs: number }
  | { readonly kind: 'measured'; readonly measurements: readonly Measurement[] }
  | { readonly kind: 'resumed' }
  | { readonly kind: 'plan'; readonly descriptor: VmDescriptor }
  | { readonly kind: 'status'; readonly vmState: VmState };

/** How a VM's frames are protected. */
export interface VmProtector {
  /** For whom the data stream is sealed, as PEM; undefined: for nobody, it is in the clear. */
  setRecipients(vm: VmId, pem: string | undefined): void;
  /** False when an epoch that is open was begun with frames signed and now they are not, or the other way round. */
  isSignedAsAsked(stream: StreamId, epoch: Epoch): boolean;
}

/** One VM's part of a commit: applies events to the engine and writes what follows. All calls within a transaction. */
export class VmOrigin {
  readonly #appender: FrameAppender;
  readonly #engineStore: EngineStore;
  readonly #cursorStore: CursorStore;
  readonly #dataStream: StreamId;
  readonly #statusStream: StreamId;
  readonly #counters = new StageCounters();
  readonly #deliveryCounters = new StageCounters();
  /** Items of the commit that is being made. */
  #inCommit = { inputs: 0, deliveries: 0 };
  readonly #rows = new RowMeasurements();
  readonly #bounds: EngineBounds;
  readonly #protector: VmProtector | undefined;
  #engine: SpecifierEngine;
  #visible: VisibleDeliveries;
  #cursors: Record<GuestArea, GuestCursor | null> = { encrypted: null, unencrypted: null };
  #guestWatermarkUs: number | null = null;
  #reportedLostCount = 0;
  /** Inputs of this commit that leave something behind in the engine. */
  #inputs: EngineInput[] = [];
  #frames: EncodedFrame[] = [];
  /** The plan has changed, or what is stored is not what the journal goes on from. */
  #isSnapshotDue = false;
  /** The epoch that a change of generation opened last. */
  #freshEpochNumber = -1;

  constructor(
    deps: {
      readonly database: Database;
      readonly appender: FrameAppender;
      readonly protector?: VmProtector;
    },
    vm: VmId,
    bounds: EngineBounds,
  ) {
    this.#appender = deps.appender;
    this.#bounds = bounds;
    this.#protector = deps.protector;
    this.#dataStream = { vm, kind: 'data' };
    this.#statusStream = { vm, kind: 'status' };
    this.#engineStore = new EngineStore(deps.database, vm, bounds);
    this.#cursorStore = new CursorStore(deps.database, vm);
    this.#visible = new VisibleDeliveries([]);
    this.#engine = new SpecifierEngine(bounds);
  }

  /**
   * Rows and samples of the probe: taken, committed (forwarded), lost by the guest or refused for good (dropped), in a commit
   * that failed or refused until they come again.
   */
  get counts(): StageCounts {
    return this.#counters.snapshot();
  }

  /** Deliveries made, committed (forwarded) and in a commit that failed; dropped: measurements that had no place in one. */
  get deliveryCounts(): StageCounts {
    return this.#deliveryCounters.snapshot();
  }

  get engine(): SpecifierEngine {
    return this.#engine;
  }

  setClock(clock: GuestClock): void {
    this.#rows.clock = clock;
  }

  cursor(area: GuestArea): GuestCursor | null {
    return this.#cursors[area];
  }

  /** Whether a watermark does something now; else it can wait for whatever comes next. */
  isMovedBy(guestTimeUs: number): boolean {
    const { timeUs, uncertaintyUs } = correctTime(this.#rows.clock, guestTimeUs);
    return this.#engine.isMovedBy(timeUs - uncertaintyUs);
  }

  /** Reads what is durable: at start, and after a commit that failed. An engine that can't be read begins anew. */
  load(): StoredEngine {
    const stored = this.#engineStore.load();
    this.#engine = stored.kind === 'engine' ? stored.engine : new SpecifierEngine(this.#bounds);
    for (const area of guestAreas) this.#cursors[area] = this.#cursorStore.read(area);
    this.#reportedLostCount = this.#lostCount();
    this.#inputs = [];
    this.#frames = [];
    this.#countCommit('failed');
    return stored;
  }

  /**
   * Opens the epochs of a VM that has none. The engine's state being gone though frames exist, or being that of an older
   * database, opens one too. An epoch that is signed from its first frame on takes the place of one that is not, as a
   * reader that requires signatures would ask for that one's missing part for ever.
   */
  open(descriptor: VmDescriptor, nowUs: number, stored: StoredEngine): readonly EncodedFrame[] {
    this.#protector?.setRecipients(descriptor.id, descriptor.primarySitePublicKey);
    const isNew = this.#engine.descriptorRevision === 0;
    const isRestored = stored.kind === 'engine' && stored.isRestored;
    for (const stream of [this.#dataStream, this.#statusStream]) {
      const head = this.#appender.head(stream);
      if (head === undefined) this.#openEpoch(stream, 'created');
      else if (isNew || isRestored) this.#openEpoch(stream, 'store-lost');
      else if (this.#protector?.isSignedAsAsked(stream, head.epoch) === false) {
        this.#frames.push(this.#appender.closeEpoch(stream));
        this.#openEpoch(stream, 'signing-changed');
      }
    }
    if (stored.kind === 'unreadable' && stored.lostCount > 0) {
      this.#deliveryCounters.accepted += stored.lostCount;
      this.#deliveryCounters.dropped += stored.lostCount;
      const reason = 'the state of windows and predicates could not be read after a restart';
      const records = [guestLost(stored.lostCount, reason)];
      this.#frames.push(this.#appender.append(this.#dataStream, records));
    }
    // Replaces what could not be read, and ends that it counts as restored.
    this.#isSnapshotDue = isRestored;
    const events: OriginEvent[] = isNew ? [] : [{ kind: 'resumed' }];
    this.commitEvents([...events, { kind: 'plan', descriptor }], nowUs);
    return this.takeFrames();
  }

  /** Counts what finds no room before a commit: rows come again, a sample does not. */
  refuse(event: OriginEvent): void {
    if (event.kind === 'measured') this.#counters.dropAtOnce();
    if (event.kind !== 'rows') return;
    this.#counters.accepted += event.batch.rows.length;
    this.#counters.failed += event.batch.rows.length;
  }

  /** Applies events and writes frames, cursor and engine state. */
  commitEvents(events: readonly OriginEvent[], nowUs: number): void {
    const data = new FramePacker((records) => {
      this.#frames.push(this.#appender.append(this.#dataStream, records));
    });
    const status = new FramePacker((records) => {
      this.#frames.push(this.#appender.append(this.#statusStream, records));
    });
    const emit = (delivery: Delivery): void => {
      this.#deliveryCounters.accepted += 1;
      this.#inCommit.deliveries += 1;
      data.add({ kind: 'delivery', delivery });
      const visible = this.#visible.of(delivery);
      if (visible !== null) status.add({ kind: 'delivery', delivery: visible });
    };
    for (const event of events) this.#applyEvent(event, nowUs, data, emit);
    // The time moves an engine only when something is due or was kept; else nothing would be written for it.
    const dueUs = this.#engine.nextDueUs();
    if (this.#inputs.length > 0 || (dueUs !== null && dueUs <= nowUs)) {
      this.#apply({ kind: 'time', nowUs }, emit, true);
    }
    this.#reportLost(data);
    data.flush();
    for (const event of events) {
      if (event.kind === 'status') status.add(this.#status(event.vmState));
    }
    status.flush();
  }

  /** Writes the engine's part; after the frames, in the same transaction. */
  writeState(): void {
    if (this.#isSnapshotDue) this.#engineStore.snapshot(this.#engine);
    else if (this.#inputs.length > 0) this.#engineStore.write(this.#engine, this.#inputs);
    this.#isSnapshotDue = false;
    this.#inputs = [];
  }

  /** Folds the journal, so that the next start replays nothing. */
  snapshot(): void {
    this.#engineStore.snapshot(this.#engine);
  }

  get hasFrames(): boolean {
    return this.#frames.length > 0;
  }

  /** After a commit: the frames appended since the last one, in order of seq for each stream. */
  takeFrames(): readonly EncodedFrame[] {
    this.#countCommit('forwarded');
    const frames = this.#frames;
    this.#frames = [];
    return frames;
  }

  /** Closes both streams and forgets the VM's state. */
  close(): readonly EncodedFrame[] {
    for (const stream of [this.#dataStream, this.#statusStream]) {
      if (this.#appender.head(stream) !== undefined) {
        this.#frames.push(this.#appender.closeEpoch(stream));
      }
    }
    this.#engineStore.remove();
    this.#cursorStore.remove();
    this.#protector?.setRecipients(this.#dataStream.vm, undefined);
    return this.takeFrames();
  }

  #applyEvent(
    event: OriginEvent,
    nowUs: number,
    data: FramePacker,
    emit: (delivery: Delivery) => void,
  ): void {
    switch (event.kind) {
      case 'rows':
        this.#takeRows(event.batch, nowUs, data, emit);
        return;
      case 'generation':
        this.#setGeneration(event.area, event.generation, data);
        return;
      case 'watermark': {
        const { timeUs, uncertaintyUs } = correctTime(this.#rows.clock, event.guestTimeUs);
        // A row may be corrected by an offset that was measured better or worse: leave room for it.
        this.#takeWatermark(timeUs - uncertaintyUs, emit);
        return;
      }
      case 'measured':
        this.#acceptInput();
        this.#takeMeasurements(event.measurements, emit);
        return;
      case 'resumed':
        this.#apply({ kind: 'resumed', nowUs }, emit, true);
        return;
      case 'plan':
        // What was measured before goes to those who were to read it then.
        data.flush();
        this.#plan(event.descriptor, nowUs, emit);
        return;
      case 'status':
        return;
    }
  }

  #takeRows(
    batch: GuestRowBatch,
    nowUs: number,
    data: FramePacker,
    emit: (delivery: Delivery) => void,
  ): void {
    this.#setGeneration(batch.area, batch.generation, data);
    const afterRowId = this.#cursors[batch.area]?.rowId ?? 0;
    for (const loss of batch.lost) {
      if (loss.throughRowId <= afterRowId) continue;
      this.#counters.accepted += loss.count;
      this.#counters.dropped += loss.count;
      data.add(guestLost(loss.count, loss.reason));
    }
    for (const row of batch.rows) {
      if (row.rowId <= afterRowId) continue;
      this.#acceptInput();
      this.#takeMeasurements(this.#rows.of(row), emit);
    }
    const newest = batch.rows.at(-1);
    if (newest !== undefined) {
      this.#counters.lagMs =
        (nowUs - correctTime(this.#rows.clock, newest.savedAtUs).timeUs) / 1_000;
    }
    const rowId = Math.max(afterRowId, batch.throughRowId);
    this.#setCursor(batch.area, { generation: batch.generation, rowId });
  }

  #takeMeasurements(
    measurements: readonly Measurement[],
    emit: (delivery: Delivery) => void,
  ): void {
    const isKept = measurements.some(({ dataPoint }) => !this.#engine.isStateless(dataPoint));
    this.#apply({ kind: 'measurements', measurements }, emit, isKept);
  }

  #takeWatermark(timeUs: number, emit: (delivery: Delivery) => void): void {
    if (this.#guestWatermarkUs !== null && timeUs <= this.#guestWatermarkUs) return;
    this.#guestWatermarkUs = timeUs;
    this.#apply({ kind: 'watermark', timeUs }, emit, this.#engine.heedsWatermarks);
  }

  /**
   * What was taken so far belongs to the old epoch, which ends in order: we are its writer. Databases that change
   * together end it once.
   */
  #setGeneration(area: GuestArea, generation: string, data: FramePacker): void {
    const before = this.#cursors[area];
    if (before?.generation === generation) return;
    this.#setCursor(area, { generation, rowId: 0 });
    if (before === null) return;
    data.flush();
    const head = this.#appender.head(this.#dataStream);
    if (head?.epoch.number === this.#freshEpochNumber && head.seq === 1) return;
    this.#frames.push(this.#appender.closeEpoch(this.#dataStream));
    this.#freshEpochNumber = this.#openEpoch(this.#dataStream, 'generation-changed');
  }

  #setCursor(area: GuestArea, cursor: GuestCursor): void {
    this.#cursors[area] = cursor;
    this.#cursorStore.write(area, cursor);
  }

  #plan(descriptor: VmDescriptor, nowUs: number, emit: (delivery: Delivery) => void): void {
    this.#protector?.setRecipients(descriptor.id, descriptor.primarySitePublicKey);
    this.#visible = new VisibleDeliveries(descriptor.monitoring.visibleToIntermediaries);
    if (descriptor.revision === this.#engine.descriptorRevision) return;
    const plan: MonitoringPlan = {
      descriptorRevision: descriptor.revision,
      specifiers: descriptor.monitoring.specifiers,
      latenessMaxMs: descriptor.monitoring.latenessMaxMs,
    };
    this.#apply({ kind: 'plan', plan, nowUs }, emit, true);
    this.#isSnapshotDue = true;
  }

  #apply(input: EngineInput, emit: (delivery: Delivery) => void, isKept: boolean): void {
    this.#engine.apply(input, emit);
    if (isKept) this.#inputs.push(input);
  }

  /** Returns the epoch's number. Its generation is that of the databases together, as one of them changing ends it. */
  #openEpoch(stream: StreamId, reason: EpochReason): number {
    const known = guestAreas.flatMap((area) => this.#cursors[area]?.generation ?? []);
    const generation = known.length === 0 ? null : known.join('.');
    const { epoch, frame } = this.#appender.openEpoch(stream, { generation, reason });
    this.#frames.push(frame);
    return epoch.number;
  }

  #reportLost(data: FramePacker): void {
    const lostCount = this.#lostCount();
    const newCount = lostCount - this.#reportedLostCount;
    this.#reportedLostCount = lostCount;
    if (newCount <= 0) return;
    this.#deliveryCounters.accepted += newCount;
    this.#deliveryCounters.dropped += newCount;
    data.add(guestLost(newCount, 'measurements outside the windows and data points that are kept'));
  }

  #acceptInput(): void {
    this.#counters.accepted += 1;
    this.#inCommit.inputs += 1;
  }

  #countCommit(outcome: 'forwarded' | 'failed'): void {
    this.#counters[outcome] += this.#inCommit.inputs;
    this.#deliveryCounters[outcome] += this.#inCommit.deliveries;
    this.#inCommit = { inputs: 0, deliveries: 0 };
  }

  #lostCount(): number {
    const { unplaced, beyondDataPoints } = this.#engine.counts;
    return unplaced + beyondDataPoints;
  }

  #status(vmState: VmState): FrameRecord {
    const head = this.#appender.head(this.#dataStream) ?? null;
    return { kind: 'status', vmState, head, watermarkUs: this.#guestWatermarkUs };
  }
}

function guestLost(count: number, reason: string): FrameRecord {
  return { kind: 'lost', where: 'guest-store', count, fromSeq: null, throughSeq: null, reason };
}
