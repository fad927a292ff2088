/** Deeper nesting than any message has. */
const depthMax = 8;

/**
 * Checks that `bytes` are exactly one well-formed CBOR item (RFC 8949) of the kind our messages are made of, before
 * a general decoder sees them: no tags, no indefinite lengths, nesting of at most eight, and no array, map or string
 * that claims more than the bytes left could hold. So a few bytes from a hostile peer can't make the decoder
 * allocate gigabytes or recurse without end. Allocates nothing.
 */
export function isPlainCbor(bytes: Uint8Array): boolean {
  const scanner = new CborScanner(bytes);
  return scanner.skipItem(0) && scanner.isAtEnd();
}

class CborScanner {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  isAtEnd(): boolean {
    return this.#offset === this.#bytes.byteLength;
  }

  skipItem(depth: number): boolean {
    const initial = this.#bytes[this.#offset];
    if (initial === undefined || depth > depthMax) return false;
    this.#offset += 1;
    const majorType = initial >> 5;
    const argument = this.#argument(initial & 31);
    if (argument === undefined) return false;
    switch (majorType) {
      case 0:
      case 1:
      case 7:
        return true;
      case 2:
      case 3:
        if (argument > this.#leftBytes()) return false;
        this.#offset += argument;
        return true;
      case 4:
        return this.#skipItems(argument, depth);
      case 5:
        return this.#skipItems(2 * argument, depth);
      default:
        return false;
    }
  }

  #skipItems(count: number, depth: number): boolean {
    if (count > this.#leftBytes()) return false;
    for (let index = 0; index < count; index += 1) {
      if (!this.skipItem(depth + 1)) return false;
    }
    return true;
  }

  /** The number in or after the initial byte; undefined when reserved, indefinite or cut off. */
  #argument(low: number): number | undefined {
    if (low < 24) return low;
    if (low > 27) return undefined;
    const byteCount = 2 ** (low - 24);
    if (byteCount > this.#leftBytes()) return undefined;
    let value = 0;
    for (let index = 0; index < byteCount; index += 1) {
      value = value * 256 + (this.#bytes[this.#offset + index] ?? 0);
    }
    this.#offset += byteCount;
    return value;
  }

  #leftBytes(): number {
    return this.#bytes.byteLength - this.#offset;
  }
}
