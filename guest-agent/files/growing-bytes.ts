/** Bytes in use under one bound. Who charges releases the same amount later. */
export class ByteBudget {
  readonly bytesMax: number;
  #usedBytes = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Takes `byteCount` (negative gives back); false, and nothing taken, when the bound would be exceeded. */
  charge(byteCount: number): boolean {
    if (byteCount > 0 && this.#usedBytes + byteCount > this.bytesMax) return false;
    this.#usedBytes += byteCount;
    return true;
  }
}

const capacityBytesMin = 64;
const noBytes = new Uint8Array(0);

/**
 * A file's bytes while they are being written: grows by doubling, holes read as NUL. Its capacity is charged to a budget;
 * a change that the budget refuses returns false and leaves everything as it was.
 */
export class GrowingBytes {
  readonly #budget: ByteBudget;
  #bytes: Uint8Array = noBytes;
  #length = 0;
  #isShared = false;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  get length(): number {
    return this.#length;
  }

  /** The bytes as they are now; valid until the next change. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** The bytes as they are now, for good: a later change copies them first. */
  share(): Uint8Array {
    this.#isShared = true;
    return this.view();
  }

  write(offset: number, data: Uint8Array): boolean {
    const end = offset + data.length;
    if (!this.#reserve(Math.max(end, this.#length))) return false;
    if (offset > this.#length) this.#bytes.fill(0, this.#length, offset);
    this.#bytes.set(data, offset);
    if (end > this.#length) this.#length = end;
    return true;
  }

  resize(length: number): boolean {
    if (!this.#reserve(length)) return false;
    if (length > this.#length) this.#bytes.fill(0, this.#length, length);
    this.#length = length;
    return true;
  }

  zero(start: number, end: number): boolean {
    if (!this.#reserve(this.#length)) return false;
    this.#bytes.fill(0, start, Math.min(end, this.#length));
    return true;
  }

  /** Gives everything back to the budget; what was shared stays valid. */
  clear(): void {
    this.#budget.charge(-this.#bytes.length);
    this.#bytes = noBytes;
    this.#length = 0;
    this.#isShared = false;
  }

  /** Room for `length` bytes of our own: never in an array that was shared. */
  #reserve(length: number): boolean {
    const capacity = this.#bytes.length;
    if (length <= capacity && !this.#isShared) return true;
    const wanted = length <= capacity ? capacity : Math.max(length, capacity * 2, capacityBytesMin);
    if (!this.#budget.charge(wanted - capacity)) return false;
    const grown = new Uint8Array(wanted);
    grown.set(this.#bytes.subarray(0, Math.min(this.#length, length)));
    this.#bytes = grown;
    this.#isShared = false;
    return true;
  }
}

/** True for content that is no save: nothing, or only NUL bytes. */
export function isBlank(content: Uint8Array): boolean {
  for (let index = 0; index < content.length; index += 1) {
    if (content[index] !== 0) return false;
  }
  return true;
}
