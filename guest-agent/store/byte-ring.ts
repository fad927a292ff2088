import assert from 'node:assert';

/**
 * A queue of records over shared memory between one producer and one consumer. A record lies in one piece: when it does
 * not fit before the end, a skip mark sends the reader to the beginning.
 *
 *   header: [written | read | waiting for room]   positions in bytes, modulo 2^32; written - read is what is in use
 *   record: u32 length (0xffffffff: skip to the beginning), payload, padding to 8 bytes
 */
export class ByteRing {
  readonly buffer: SharedArrayBuffer;
  readonly #header: Int32Array;
  readonly #bytes: Buffer;
  readonly #capacity: number;
  /** The reader's position when there was no room. */
  #readSeen = 0;

  /** Takes memory made by {@link ByteRing.allocate}, on either side. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#header = new Int32Array(buffer, 0, headerBytes / 4);
    this.#capacity = buffer.byteLength - headerBytes;
    assert((this.#capacity & (this.#capacity - 1)) === 0, 'capacity is a power of two');
    this.#bytes = Buffer.from(buffer, headerBytes, this.#capacity);
  }

  /** Memory for a ring that takes records of up to `recordBytesMax`. */
  static allocate(recordBytesMax: number): SharedArrayBuffer {
    let capacity = 2 ** 16;
    while (capacity / 2 < recordBytesMax + 16) capacity *= 2;
    return new SharedArrayBuffer(headerBytes + capacity);
  }

  get recordBytesMax(): number {
    return this.#capacity / 2 - 16;
  }

  get isEmpty(): boolean {
    return Atomics.load(this.#header, writtenIndex) === Atomics.load(this.#header, readIndex);
  }

  /**
   * Producer: has `encode` write a record of at most `byteCountMax` bytes into the ring and return its true length.
   * False, without calling it, when there is no room.
   */
  tryPush(byteCountMax: number, encode: (target: Buffer) => number): boolean {
    assert(byteCountMax <= this.recordBytesMax, `record of ${byteCountMax} bytes`);
    const written = Atomics.load(this.#header, writtenIndex) >>> 0;
    this.#readSeen = Atomics.load(this.#header, readIndex);
    const used = (written - (this.#readSeen >>> 0)) >>> 0;
    let offset = written & (this.#capacity - 1);
    let advance = 0;
    if (this.#capacity - offset < recordBytes(byteCountMax)) {
      advance = this.#capacity - offset;
      if (used + advance + recordBytes(byteCountMax) > this.#capacity) return false;
      this.#bytes.writeUInt32LE(skipMark, offset);
      offset = 0;
    } else if (used + recordBytes(byteCountMax) > this.#capacity) {
      return false;
    }
    const start = offset + lengthBytes;
    const byteCount = encode(this.#bytes.subarray(start, start + byteCountMax));
    this.#bytes.writeUInt32LE(byteCount, offset);
    Atomics.store(this.#header, writtenIndex, (written + advance + recordBytes(byteCount)) | 0);
    return true;
  }

  /** Producer: sleeps until the consumer has made room since `tryPush` said no, or `timeoutMs` is over. */
  waitForRoom(timeoutMs: number): void {
    Atomics.store(this.#header, waitingIndex, 1);
    Atomics.wait(this.#header, readIndex, this.#readSeen, timeoutMs);
    Atomics.store(this.#header, waitingIndex, 0);
  }

  /** Consumer: gives `take` the oldest record, valid during the call only. False when the ring is empty. */
  tryPop(take: (record: Buffer) => void): boolean {
    const written = Atomics.load(this.#header, writtenIndex);
    let read = Atomics.load(this.#header, readIndex);
    if (read === written) return false;
    let offset = (read >>> 0) & (this.#capacity - 1);
    let byteCount = this.#bytes.readUInt32LE(offset);
    if (byteCount === skipMark) {
      read = (read + this.#capacity - offset) | 0;
      offset = 0;
      byteCount = this.#bytes.readUInt32LE(0);
    }
    const start = offset + lengthBytes;
    take(this.#bytes.subarray(start, start + byteCount));
    Atomics.store(this.#header, readIndex, (read + recordBytes(byteCount)) | 0);
    if (Atomics.load(this.#header, waitingIndex) === 1) Atomics.notify(this.#header, readIndex);
    return true;
  }
}

const headerBytes = 64;
const writtenIndex = 0;
const readIndex = 1;
const waitingIndex = 2;
const lengthBytes = 8;
const skipMark = 0xff_ff_ff_ff;

/** What a record takes up: positions stay multiples of 8, so a skip mark always fits. */
function recordBytes(byteCount: number): number {
  return (lengthBytes + byteCount + 7) & ~7;
}
