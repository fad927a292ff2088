/** Bytes that are not what the format says. Codecs catch it at their edge and return it as a problem. */
export class MalformedBytes extends Error {
  override readonly name = 'MalformedBytes';
  readonly offset: number;

  constructor(rule: string, offset: number) {
    super(rule);
    this.offset = offset;
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const asciiFastBytesMax = 64;

/**
 * Reads what ByteWriter wrote. Every read checks its bounds and throws MalformedBytes; `bytes` are views of the
 * input, not copies.
 */
export class ByteReader {
  readonly #buffer: Buffer;
  #offset: number;

  constructor(bytes: Uint8Array, offset = 0) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#offset = offset;
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#buffer.length - this.#offset;
  }

  /** What is left, as a view; the reader is at its end then. */
  rest(): Uint8Array {
    return this.raw(this.remaining);
  }

  fail(rule: string): never {
    throw new MalformedBytes(rule, this.#offset);
  }

  byte(): number {
    const value = this.#buffer[this.#offset];
    if (value === undefined) this.fail('ends early');
    this.#offset += 1;
    return value;
  }

  varint(): number {
    let value = 0;
    let factor = 1;
    for (let index = 0; index < 8; index += 1) {
      const byte = this.byte();
      value += (byte & 127) * factor;
      if (byte < 128) {
        if (byte === 0 && index > 0) this.fail('varint is not the shortest');
        if (!Number.isSafeInteger(value)) this.fail('varint exceeds 2^53 - 1');
        return value;
      }
      factor *= 128;
    }
    return this.fail('varint is longer than 8 bytes');
  }

  signedVarint(): number {
    const doubled = this.varint();
    return doubled % 2 === 0 ? doubled / 2 : -(doubled + 1) / 2;
  }

  float64(): number {
    if (this.remaining < 8) this.fail('ends early');
    const value = this.#buffer.readDoubleLE(this.#offset);
    this.#offset += 8;
    return value;
  }

  int64(): bigint {
    if (this.remaining < 8) this.fail('ends early');
    const value = this.#buffer.readBigInt64LE(this.#offset);
    this.#offset += 8;
    return value;
  }

  raw(byteCount: number): Uint8Array {
    if (byteCount > this.remaining) this.fail('ends early');
    const view = new Uint8Array(
      this.#buffer.buffer,
      this.#buffer.byteOffset + this.#offset,
      byteCount,
    );
    this.#offset += byteCount;
    return view;
  }

  bytes(): Uint8Array {
    return this.raw(this.varint());
  }

  text(): string {
    const byteCount = this.varint();
    const view = this.raw(byteCount);
    const ascii = byteCount <= asciiFastBytesMax ? shortAscii(view) : undefined;
    if (ascii !== undefined) return ascii;
    try {
      return utf8.decode(view);
    } catch {
      return this.fail('text is not UTF-8');
    }
  }
}

/** Short ASCII is most of what there is, and building it here is several times faster than TextDecoder. */
function shortAscii(view: Uint8Array): string | undefined {
  let text = '';
  for (const byte of view) {
    if (byte > 127) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}
