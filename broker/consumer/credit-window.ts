const bytesMinDefault = 4 * 1_024;
/** What waits on the way for less than this leaves room for more; for longer than the second, it is too much. */
const queuedMsLow = 100;
const queuedMsHigh = 400;
/** A window that is there sooner than {@link queuedMsLow} is widened to what would take that long, by so much at a time. */
const growthMax = 8;
/** No way takes longer when nothing waits on it: the first answer on a slow link is no measure of its length. */
const wayMsMax = 1_000;

/**
 * How much back-fill one query may have under way. What is under way goes before every live frame that comes after it, so
 * this follows how long granted bytes take: it doubles while they come about as fast as a single one would, grows eightfold
 * while even that many would come in an instant, and halves when they queue up somewhere on the way. So a slow link is never filled for
 * long, and a fast one always, after three round trips: whoever waits for what a hop missed waits for those.
 */
export class CreditWindow {
  readonly #bytesMax: number;
  #bytes: number;
  #wayMs = wayMsMax;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#bytes = Math.min(bytesMinDefault, bytesMax);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** All of a window came within `elapsedMs` of the moment that it was granted. */
  arrived(elapsedMs: number): void {
    this.#wayMs = Math.min(this.#wayMs, elapsedMs);
    const queuedMs = elapsedMs - this.#wayMs;
    const bytesMin = Math.min(bytesMinDefault, this.#bytesMax);
    if (queuedMs < queuedMsLow) {
      const growth = Math.min(Math.max(2, queuedMsLow / elapsedMs), growthMax);
      this.#bytes = Math.min(Math.floor(growth * this.#bytes), this.#bytesMax);
    }
    if (queuedMs > queuedMsHigh) this.#bytes = Math.max(this.#bytes / 2, bytesMin);
  }

  /** The connection is another one, and its way may be. */
  reset(): void {
    this.#bytes = Math.min(bytesMinDefault, this.#bytesMax);
    this.#wayMs = wayMsMax;
  }
}
