import assert from 'node:assert';

const initialBytes = 1_024;
const uint32Range = 2 ** 32;

/** Appends binary fields to a buffer that grows. Numbers are little-endian; lengths are varints (LEB128). */
export class ByteWriter {
  #buffer: Buffer = Buffer.allocUnsafe(initialBytes);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** What was written, copied out; the writer can be used on after {@link reset}. */
  finish(): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#buffer, 0, this.#length);
  }

  reset(): void {
    this.#length = 0;
  }

  /** What was written so far, from `start` on: a view that the next write may leave stale. */
  view(start = 0): Uint8Array {
    return this.#buffer.subarray(start, this.#length);
  }

  /** Takes back everything from `length` on. */
  truncate(length: number): void {
    assert(length <= this.#length);
    this.#length = length;
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#length] = value;
    this.#length += 1;
  }

  /** A safe integer from 0 on, in 1 byte below 128, 8 bytes at most. */
  varint(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, `not an unsigned integer: ${value}`);
    this.#reserve(8);
    let rest = value;
    while (rest >= uint32Range) {
      this.#buffer[this.#length++] = (rest % 128) + 128;
      rest = Math.floor(rest / 128);
    }
    while (rest > 127) {
      this.#buffer[this.#length++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    this.#buffer[this.#length++] = rest;
  }

  /** A safe integer of either sign: twice its size, and one less where it is negative. */
  signedVarint(value: number): void {
    const doubled = value < 0 ? -2 * value - 1 : 2 * value;
    this.varint(doubled);
  }

  float64(value: number): void {
    this.#reserve(8);
    this.#buffer.writeDoubleLE(value, this.#length);
    this.#length += 8;
  }

  int64(value: bigint): void {
    this.#reserve(8);
    this.#buffer.writeBigInt64LE(value, this.#length);
    this.#length += 8;
  }

  /** Bytes without their length. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  bytes(bytes: Uint8Array): void {
    this.varint(bytes.length);
    this.raw(bytes);
  }

  text(text: string): void {
    const byteCount = Buffer.byteLength(text, 'utf8');
    this.varint(byteCount);
    this.#reserve(byteCount);
    this.#length += this.#buffer.write(text, this.#length, byteCount, 'utf8');
  }

  #reserve(byteCount: number): void {
    const needed = this.#length + byteCount;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}
