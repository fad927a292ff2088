import { type Area, areas } from '../../common/channel/area.ts';
import type { GuestRow } from '../../common/channel/guest-row.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import { AreaStore, type StoreDeps, type AreaCounters } from './area-store.ts';
import type { LostRows } from './size-keeper.ts';
import type { StoreOptions } from './store-options.ts';
import { type StoreOutcome, type StoreRequest } from './store-request.ts';

/** What the main thread hears of: rows that the host may fetch, rows that it never will. */
export type StoreEvent =
  | {
      readonly kind: 'published';
      readonly area: Area;
      readonly throughRowId: GuestRow['rowId'];
      /** Tables with new rows among those that have a trigger. */
      readonly tables: readonly string[];
    }
  | ({ readonly kind: 'lost'; readonly area: Area } & LostRows)
  | { readonly kind: 'generation'; readonly area: Area; readonly generation: string };

/** A save that the host does not have yet. */
export interface HeldReport {
  readonly area: Area;
  readonly table: string;
  readonly savedAtUs: number;
  /** Its handle is still open, or its file is new and may be renamed. */
  readonly reason: 'open-handle' | 'new-name';
}

/** A save this little older than a watermark that was handed out is stamped just after it; more is a clock step. */
const stampCorrectionMaxUs = 1_000_000;

/**
 * The store: both databases, on one thread, without waiting for anything but the disk and (bounded) a lock.
 *
 *   apply(batch) -> outcomes, durable      then the caller pushes outcomes and replies
 *   afterReplies(), tick() -> next due     publishing by time, overtaking, checkpoints
 *   takeEvents()                           what the host may fetch now
 */
export class StoreEngine {
  readonly #areas: Readonly<Record<Area, AreaStore>>;
  readonly #clock: Clock;
  readonly #areaOfHandle = new Map<number, Area>();
  readonly #reportedFrontier: Record<Area, number> = { encrypted: 0, unencrypted: 0 };
  #watermarkUs = 0;

  /** Opens and recovers both databases. Throws DatabaseError. */
  constructor(deps: StoreDeps, options: StoreOptions) {
    this.#clock = deps.clock;
    const encrypted = new AreaStore('encrypted', deps, options);
    try {
      this.#areas = { encrypted, unencrypted: new AreaStore('unencrypted', deps, options) };
    } catch (error) {
      encrypted.close();
      throw error;
    }
  }

  /** Applies a batch: one transaction for each database that it touches. Outcomes are in the batch's order. */
  apply(batch: readonly StoreRequest[]): readonly StoreOutcome[] {
    const first = batch[0];
    if (first === undefined) return [];
    const batchAreas = batch.map((request) => this.#areaOf(request));
    const onlyArea = batchAreas[0] ?? 'unencrypted';
    if (batchAreas.every((area) => area === onlyArea)) {
      return this.#areas[onlyArea].apply(this.#stamped(batch));
    }
    const outcomes = Array.from<StoreOutcome>({ length: batch.length });
    for (const area of areas) {
      const indexes = [...batch.keys()].filter((index) => batchAreas[index] === area);
      const requests = indexes.map((index) => batch[index] ?? first);
      const results = this.#areas[area].apply(this.#stamped(requests));
      for (const [position, outcome] of results.entries()) {
        outcomes[indexes[position] ?? 0] = outcome;
      }
    }
    return outcomes;
  }

  /** Timers. Returns the monotonic ms at which it wants to be called again, Infinity for never. */
  tick(): number {
    return Math.min(...areas.map((area) => this.#areas[area].tick()));
  }

  afterReplies(): void {
    for (const area of areas) this.#areas[area].afterReplies();
  }

  idle(): void {
    for (const area of areas) this.#areas[area].idle();
  }

  /** What happened since the last call; several publishings are one event. */
  takeEvents(): readonly StoreEvent[] {
    const events: StoreEvent[] = [];
    for (const area of areas) {
      const store = this.#areas[area];
      for (const lost of store.takeLost()) events.push({ kind: 'lost', area, ...lost });
      const throughRowId = this.frontier(area);
      if (throughRowId <= this.#reportedFrontier[area]) continue;
      this.#reportedFrontier[area] = throughRowId;
      const tables = store.state.tables.takeInserted(throughRowId);
      events.push({ kind: 'published', area, throughRowId, tables });
    }
    return events;
  }

  /** Every row of `area` through this row_id is published, and none will appear at or below it. */
  frontier(area: Area): number {
    return this.#areas[area].state.frontier();
  }

  generation(area: Area): string {
    return this.#areas[area].identity.generation;
  }

  counters(area: Area): Readonly<AreaCounters> {
    return this.#areas[area].counters;
  }

  /** Saves that are committed but not published, of each area in the order of their commits; at most `countMax`. */
  held(countMax: number): readonly HeldReport[] {
    const nowMs = this.#clock.monotonicMs();
    return areas
      .flatMap((area) =>
        [...this.#areas[area].state.held.values()].map(
          ({ table, savedAtUs, newNameUntilMs }): HeldReport => ({
            area,
            table,
            savedAtUs,
            reason: newNameUntilMs > nowMs ? 'new-name' : 'open-handle',
          }),
        ),
      )
      .slice(0, countMax);
  }

  /** Bytes of the database with its WAL, free pages left out; not of more than a checkpoint ago by more than its saves. */
  storedBytes(area: Area): number {
    return this.#areas[area].storedBytes;
  }

  /** The last row that the host has acknowledged. */
  acknowledgedRowId(area: Area): number {
    return this.#areas[area].acknowledgedRowId;
  }

  /** savedAtUs of the oldest save that is not yet published; undefined when there is none. */
  oldestHeldUs(): number | undefined {
    const held = areas.flatMap((area) => this.#areas[area].state.oldestHeldUs() ?? []);
    return held.length === 0 ? undefined : Math.min(...held);
  }

  /** Someone was told that nothing older than this will come: later saves are stamped accordingly. */
  promiseWatermark(watermarkUs: number): void {
    this.#watermarkUs = watermarkUs;
  }

  /** Replaces the registered triggers of `area` by ones on tables that match `patterns`. */
  watch(area: Area, patterns: readonly string[]): void {
    this.#areas[area].state.tables.watch(patterns, this.#reportedFrontier[area]);
  }

  /** Whether anyone has registered triggers on tables of `area`. */
  isWatched(area: Area): boolean {
    return this.#areas[area].state.tables.hasWatch;
  }

  /** The host has every row of `generation` through `rowId`. */
  acknowledge(area: Area, generation: string, rowId: number): readonly StoreEvent[] {
    const store = this.#areas[area];
    if (store.acknowledge(generation, rowId)) return [];
    store.declareRolledBack(rowId);
    return [{ kind: 'generation', area, generation: store.identity.generation }];
  }

  /** Closes both databases; held saves are published at the next start. */
  close(): void {
    for (const area of areas) this.#areas[area].close();
  }

  #areaOf(request: StoreRequest): Area {
    switch (request.kind) {
      case 'publish': {
        const area = this.#areaOfHandle.get(request.handle) ?? 'unencrypted';
        if (request.token === null) this.#areaOfHandle.delete(request.handle);
        return area;
      }
      case 'rename':
        return request.to.area;
      case 'save':
      case 'append':
        if (request.location.area === 'encrypted') {
          this.#areaOfHandle.set(request.handle, 'encrypted');
        }
        return request.location.area;
      case 'put-file':
      case 'put-directory':
      case 'remove':
      default:
        return request.location.area;
    }
  }

  #stamped(batch: readonly StoreRequest[]): readonly StoreRequest[] {
    const promised = this.#watermarkUs;
    if (!batch.some((request) => isJustBefore(request, promised))) return batch;
    return batch.map((request) =>
      isJustBefore(request, promised) ? { ...request, savedAtUs: promised + 1 } : request,
    );
  }
}

function isJustBefore(request: StoreRequest, watermarkUs: number): boolean {
  return (
    'savedAtUs' in request &&
    request.savedAtUs <= watermarkUs &&
    request.savedAtUs > watermarkUs - stampCorrectionMaxUs
  );
}
