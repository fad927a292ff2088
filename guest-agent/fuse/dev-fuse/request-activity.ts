const begunSlot = 0;
const endedSlot = 1;

/**
 * Which request the fuse thread is at, for the main thread to read: between two requests the fuse thread sleeps in the
 * kernel and takes no messages, so what it is at is the only sign that it hangs.
 */
export class RequestActivity {
  readonly #words: Int32Array;
  #lookedAt: number | undefined;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(8);
  }

  /** Fuse thread: a request was read. */
  begin(): void {
    Atomics.add(this.#words, begunSlot, 1);
  }

  /** Fuse thread: it is answered, or handed to the store thread. */
  end(): void {
    Atomics.add(this.#words, endedSlot, 1);
  }

  /** Main thread: whether the fuse thread is still at the request that it was at when this was called before. */
  isStuck(): boolean {
    const ended = Atomics.load(this.#words, endedSlot);
    const begun = Atomics.load(this.#words, begunSlot);
    const present = begun === ended ? undefined : begun;
    const isStuck = present !== undefined && present === this.#lookedAt;
    this.#lookedAt = present;
    return isStuck;
  }
}
