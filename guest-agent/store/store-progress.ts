import { type Area, areas } from '../../common/channel/area.ts';

/** A stamp may be this much older than the moment at which the request reaches the queue. */
const stampGuardUs = 5_000;
const noHeldUs = -1n;

const busySlot = 0;
const promisedSlot = 1;
const oldestHeldSlot = 2;
const frontierSlot = 3;
const storedBytesSlot = frontierSlot + areas.length;

/**
 * How far the store thread is, for the main thread to read at any time. A watermark is promised by the reader and obeyed
 * by the store thread: the reader writes the promise, then looks whether the store is at rest; the store says that it is
 * busy, then reads the promise. So one of the two always sees the other.
 */
export class StoreProgress {
  readonly #slots: BigInt64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#slots = new BigInt64Array(buffer);
  }

  /** Store thread, before the others look for the first time. */
  reset(): void {
    Atomics.store(this.#slots, busySlot, 1n);
    Atomics.store(this.#slots, oldestHeldSlot, noHeldUs);
  }

  /** Store thread, before it takes a batch. Returns the watermark that was promised last. */
  beginBatch(): number {
    Atomics.store(this.#slots, busySlot, 1n);
    return Number(Atomics.load(this.#slots, promisedSlot));
  }

  /** Store thread, when all that was queued is done. */
  endBatch(
    frontiers: Readonly<Record<Area, number>>,
    oldestHeldUs: number | undefined,
    isQueueEmpty: boolean,
  ): void {
    for (const [index, area] of areas.entries()) {
      Atomics.store(this.#slots, frontierSlot + index, BigInt(frontiers[area]));
    }
    const held = oldestHeldUs === undefined ? noHeldUs : BigInt(oldestHeldUs);
    Atomics.store(this.#slots, oldestHeldSlot, held);
    if (isQueueEmpty) Atomics.store(this.#slots, busySlot, 0n);
  }

  /** Store thread, between two batches: the bytes of a database with its WAL, free pages left out. */
  noteStoredBytes(area: Area, bytes: number): void {
    Atomics.store(this.#slots, storedBytesSlot + areas.indexOf(area), BigInt(bytes));
  }

  /** Of the fuller of the two databases. */
  storedBytes(): number {
    return Math.max(
      ...areas.map((_, index) => Number(Atomics.load(this.#slots, storedBytesSlot + index))),
    );
  }

  /** Every row of `area` through this row_id is published, and none will appear at or below it. */
  frontier(area: Area): number {
    return Number(Atomics.load(this.#slots, frontierSlot + areas.indexOf(area)));
  }

  /**
   * "Nothing older than this will come" (µs of the epoch), never falling except with a step of the wall clock. One thread
   * asks. While the store is busy it is the last answer.
   */
  watermarkUs(wallUs: number): number {
    const before = Atomics.load(this.#slots, promisedSlot);
    const fresh = wallUs - stampGuardUs;
    const candidate = Math.min(fresh, this.#beforeOldestHeld() ?? fresh);
    Atomics.store(this.#slots, promisedSlot, BigInt(candidate));
    if (Atomics.load(this.#slots, busySlot) === 1n) {
      Atomics.store(this.#slots, promisedSlot, before);
      return Number(before);
    }
    // Again, as a batch may have come and gone before the promise was written.
    const promised = Math.min(candidate, this.#beforeOldestHeld() ?? candidate);
    Atomics.store(this.#slots, promisedSlot, BigInt(promised));
    return promised;
  }

  #beforeOldestHeld(): number | undefined {
    const held = Atomics.load(this.#slots, oldestHeldSlot);
    return held === noHeldUs ? undefined : Number(held) - 1;
  }
}
