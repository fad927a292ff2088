import { crc32 } from 'node:zlib';

import { payloadBytesMax } from './protocol.ts';

/**
 * Frames on a raw byte stream.
 *
 *   | magic F5 'I' 'S' 'B' | session 5 | length 5 | crc-32 5 | body (length bytes) |
 *
 * The three numbers are 32 bits in five bytes of seven bits, so their bytes are below 80. The body is the payload with
 * a zero byte inserted after each F5 'I' 'S' and another at its end, so that the next frame's magic can't complete
 * a frame that lacks its last bytes. Therefore **the magic is nowhere but at the start of a frame**: whatever comes
 * before it is garbage, a frame in which it appears is the half frame of a dead predecessor and ends there, and
 * nothing that an application saves can be taken for a frame. `length` counts the body with its zero bytes;
 * the CRC covers session, length and body.
 */
const magic = Buffer.from([0xf5, 0x49, 0x53, 0x42]);
const magicPrefix = magic.subarray(0, 3);
const stuffing = Buffer.from([0]);
const numberBytes = 5;
const headerBytes = magic.length + 3 * numberBytes;
/** One inserted byte for each three of payload at worst, and the last. */
const bodyBytesMax = payloadBytesMax + Math.ceil(payloadBytesMax / magicPrefix.length) + 1;
/** A decoder that has room for more than this gives it back once it is empty. */
const idleBufferBytesMax = 262_144;

/** A frame that arrived whole. `payload` is the receiver's own. */
export interface DecodedFrame {
  readonly session: number;
  readonly payload: Buffer;
}

/** `skipped`: bytes before a magic. `cut`: a frame that another begins in. `crc`, `length`: a frame that is wrong. */
export interface FrameDamage {
  readonly cause: 'skipped' | 'cut' | 'crc' | 'length';
  readonly byteCount: number;
}

export interface FrameHandler {
  frame(frame: DecodedFrame): void;
  damage(damage: FrameDamage): void;
}

/** One frame's bytes. `session` is an unsigned 32-bit number. @throws RangeError beyond {@link payloadBytesMax}. */
export function encodeFrame(session: number, payload: Uint8Array): Buffer {
  if (payload.byteLength > payloadBytesMax) {
    throw new RangeError(`a payload of ${payload.byteLength} bytes exceeds ${payloadBytesMax}`);
  }
  const body = stuff(payload);
  const length = body.byteLength + stuffing.length;
  const frame = Buffer.alloc(headerBytes + length);
  magic.copy(frame);
  writeNumber(frame, magic.length, session);
  writeNumber(frame, magic.length + numberBytes, length);
  body.copy(frame, headerBytes);
  writeNumber(frame, headerBytes - numberBytes, checksum(frame, 0, length));
  return frame;
}

/**
 * Finds the frames in a byte stream that arrives in pieces of any size. Never throws, whatever the bytes; holds
 * at most one frame of the largest size; does work linear in what arrives.
 */
export class FrameDecoder {
  readonly #handler: FrameHandler;
  #buffer: Buffer = Buffer.alloc(0);
  /** What is not yet consumed: [start, end) of the buffer. */
  #start = 0;
  #end = 0;
  /** The body has no magic before this. */
  #scannedTo = 0;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Bytes that wait for the rest of their frame. */
  get pendingBytes(): number {
    return this.#end - this.#start;
  }

  push(chunk: Uint8Array): void {
    // Piecewise, so that the buffer's bound holds for a chunk of any size.
    for (let offset = 0; offset < chunk.byteLength; offset += bodyBytesMax) {
      this.#append(chunk.subarray(offset, offset + bodyBytesMax));
      while (this.#step());
      this.#compact();
    }
  }

  /** Consumes a frame or a piece of garbage; false when more bytes are needed. */
  #step(): boolean {
    if (!this.#skipToMagic() || this.pendingBytes < headerBytes) return false;
    const at = this.#start;
    const session = readNumber(this.#buffer, at + magic.length);
    const length = readNumber(this.#buffer, at + magic.length + numberBytes);
    const sum = readNumber(this.#buffer, at + headerBytes - numberBytes);
    if (session === undefined || length === undefined || sum === undefined) {
      return this.#drop('length', magic.length);
    }
    if (length > bodyBytesMax || length < stuffing.length) {
      return this.#drop('length', magic.length);
    }

    const frameEnd = at + headerBytes + length;
    const nextMagic = this.#findMagicInBody(Math.min(frameEnd, this.#end));
    if (nextMagic !== -1) return this.#drop('cut', nextMagic - at);
    if (frameEnd > this.#end) return false;
    if (checksum(this.#buffer, at, length) !== sum) return this.#drop('crc', magic.length);

    const payload = unstuff(this.#buffer.subarray(at + headerBytes, frameEnd - stuffing.length));
    this.#consume(headerBytes + length);
    this.#handler.frame({ session, payload });
    return true;
  }

  /** True once the pending bytes begin with the whole magic. */
  #skipToMagic(): boolean {
    const pending = this.#buffer.subarray(this.#start, this.#end);
    const at = pending.indexOf(magic);
    if (at === 0) return true;
    const garbageBytes = at === -1 ? pending.byteLength - magicTailBytes(pending) : at;
    if (garbageBytes > 0) this.#drop('skipped', garbageBytes);
    return at !== -1;
  }

  #findMagicInBody(limit: number): number {
    const from = Math.max(this.#scannedTo, this.#start + magic.length);
    const at = this.#buffer.subarray(0, limit).indexOf(magic, from);
    this.#scannedTo = Math.max(from, limit - magic.length + 1);
    return at;
  }

  #drop(cause: FrameDamage['cause'], byteCount: number): true {
    this.#consume(byteCount);
    this.#handler.damage({ cause, byteCount });
    return true;
  }

  #consume(byteCount: number): void {
    this.#start += byteCount;
    this.#scannedTo = this.#start;
  }

  #append(chunk: Uint8Array): void {
    const neededBytes = this.#end + chunk.byteLength;
    if (neededBytes > this.#buffer.byteLength) {
      const grown = Buffer.allocUnsafeSlow(
        Math.max(neededBytes, 2 * this.#buffer.byteLength, 4_096),
      );
      this.#buffer.copy(grown, 0, 0, this.#end);
      this.#buffer = grown;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end = neededBytes;
  }

  /** Moves what is pending to the front once that costs less than what was consumed. */
  #compact(): void {
    if (this.#start === 0) return;
    const { pendingBytes } = this;
    if (pendingBytes === 0) {
      if (this.#buffer.byteLength > idleBufferBytesMax) this.#buffer = Buffer.alloc(0);
    } else if (pendingBytes > this.#start) {
      return;
    }
    this.#buffer.copyWithin(0, this.#start, this.#end);
    this.#scannedTo -= this.#start;
    this.#start = 0;
    this.#end = pendingBytes;
  }
}

/** Bytes at the end of `bytes` that may be the beginning of a magic. */
function magicTailBytes(bytes: Buffer): number {
  for (let count = Math.min(magic.length - 1, bytes.byteLength); count > 0; count -= 1) {
    if (bytes.subarray(-count).equals(magic.subarray(0, count))) return count;
  }
  return 0;
}

function stuff(payload: Uint8Array): Buffer {
  const bytes = asBuffer(payload);
  let at = bytes.indexOf(magicPrefix);
  if (at === -1) return bytes;
  const pieces: Buffer[] = [];
  let from = 0;
  while (at !== -1) {
    pieces.push(bytes.subarray(from, at + magicPrefix.length), stuffing);
    from = at + magicPrefix.length;
    at = bytes.indexOf(magicPrefix, from);
  }
  pieces.push(bytes.subarray(from));
  return Buffer.concat(pieces);
}

/** A copy of `body` without its inserted bytes. */
function unstuff(body: Buffer): Buffer {
  const payload = Buffer.allocUnsafeSlow(body.byteLength);
  let from = 0;
  let to = 0;
  for (;;) {
    const at = body.indexOf(magicPrefix, from);
    const until = at === -1 ? body.byteLength : at + magicPrefix.length;
    to += body.copy(payload, to, from, until);
    if (at === -1) return payload.subarray(0, to);
    from = until + stuffing.length;
  }
}

/** Of the frame at `at`: over session and length, then the body. */
function checksum(bytes: Buffer, at: number, length: number): number {
  const numbers = bytes.subarray(at + magic.length, at + headerBytes - numberBytes);
  const bodyStart = at + headerBytes;
  return crc32(bytes.subarray(bodyStart, bodyStart + length), crc32(numbers));
}

function writeNumber(target: Buffer, offset: number, value: number): void {
  let rest = value;
  for (let index = numberBytes - 1; index >= 0; index -= 1) {
    target[offset + index] = rest % 128;
    rest = Math.floor(rest / 128);
  }
}

/** undefined when a byte has its high bit set or the value 33 bits or more. */
function readNumber(source: Buffer, offset: number): number | undefined {
  let value = 0;
  for (let index = 0; index < numberBytes; index += 1) {
    const byte = source[offset + index] ?? 0xff;
    if (byte > 0x7f) return undefined;
    value = value * 128 + byte;
  }
  return value <= 0xffff_ffff ? value : undefined;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
