import assert from 'node:assert';
import { isUtf8 } from 'node:buffer';
import { endianness } from 'node:os';

import { errno } from '../errno.ts';
import type { Caller, NodeId, ReplyToken, Result } from '../file-system.ts';

/** struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen. */
export const requestHeaderBytes = 40;

const wordBytes = 4;
const twoTo32 = 0x1_0000_0000;

/**
 * One request as it lies in the receive buffer, read in place: the hot path allocates nothing for it. Valid until
 * the buffer receives the next request. Every reader checks bounds and answers an errno (as a {@link Result}) or
 * zero for what is not there; none throws, whatever the bytes.
 */
export class RequestMessage {
  readonly bytes: Buffer;
  readonly #words: Uint32Array;
  readonly #longs: BigUint64Array;
  #byteCount = 0;

  /** `bytes` is as long as the largest request and starts at a multiple of 8 in its memory. */
  constructor(bytes: Buffer) {
    // The device speaks the host's byte order; Node runs on little-endian Linux machines only.
    assert.equal(endianness(), 'LE');
    this.bytes = bytes;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
    this.#longs = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 3);
  }

  /** Takes what one read(2) returned; false when that is no whole request, which can't be answered. */
  receive(byteCount: number): boolean {
    this.#byteCount = byteCount;
    return byteCount >= requestHeaderBytes && this.#words[0] === byteCount;
  }

  get byteCount(): number {
    return this.#byteCount;
  }

  get opcode(): number {
    return this.#words[1] ?? 0;
  }

  /** Identifies the request in its reply; bit 63 is set when the kernel sends it again (FUSE_UNIQUE_RESEND). */
  get unique(): ReplyToken {
    return this.#longs[1] ?? 0n;
  }

  get uniqueLow(): number {
    return this.#words[2] ?? 0;
  }

  get uniqueHigh(): number {
    return this.#words[3] ?? 0;
  }

  get node(): NodeId {
    return this.u64(16);
  }

  get caller(): Caller {
    return { uid: this.u32(24), gid: this.u32(28), pid: this.u32(32) };
  }

  /** Whether the request holds `byteCount` bytes behind its header. */
  hasBody(byteCount: number): boolean {
    return this.#byteCount >= requestHeaderBytes + byteCount;
  }

  /** The 32-bit field at `offset` from the start of the request, a multiple of 4. */
  u32(offset: number): number {
    return offset + wordBytes <= this.#byteCount ? (this.#words[offset >>> 2] ?? 0) : 0;
  }

  /** The unsigned 64-bit field at `offset`, a multiple of 4; beyond 2^53 only approximate. */
  u64(offset: number): number {
    return this.u32(offset) + this.u32(offset + wordBytes) * twoTo32;
  }

  /** The signed 64-bit field at `offset`, a multiple of 4; beyond 2^53 only approximate. */
  i64(offset: number): number {
    return this.u32(offset) + (this.u32(offset + wordBytes) | 0) * twoTo32;
  }

  /**
   * The NUL-terminated name that starts at `offset`. -EINVAL when it is empty, holds a slash or does not end;
   * -EILSEQ when it is not UTF-8.
   */
  name(offset: number): string | Result {
    const end = this.nameEnd(offset);
    if (end <= offset) return -errno.EINVAL;
    const nameBytes = this.bytes.subarray(offset, end);
    if (!isUtf8(nameBytes)) return -errno.EILSEQ;
    const name = nameBytes.toString('utf8');
    return name.includes('/') ? -errno.EINVAL : name;
  }

  /** Where the NUL of the name at `offset` is; -1 when there is none in the request. */
  nameEnd(offset: number): number {
    if (offset >= this.#byteCount) return -1;
    const end = this.bytes.indexOf(0, offset);
    return end < this.#byteCount ? end : -1;
  }
}
