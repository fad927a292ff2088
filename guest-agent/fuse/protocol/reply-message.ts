import type { Attributes, FileSystemStatistics } from '../file-system.ts';
import { encodeInitBody, type Negotiation } from './init.ts';
import type { RequestMessage } from './request-message.ts';

/** struct fuse_out_header: len, error, unique. */
export const replyHeaderBytes = 16;
const attributeBytes = 88;
const twoTo32 = 0x1_0000_0000;
const microsecondsPerSecond = 1_000_000;
const nanosecondsPerMicrosecond = 1_000;
/** st_blocks counts these, whatever the file system's own block size (stat(2)). */
const statBlockBytes = 512;
const preferredTransferBytes = 4096;

/** How long the kernel may go on believing an answer; 0 asks again each time. */
export interface Validity {
  readonly entryMs: number;
  readonly attributesMs: number;
}

/**
 * The reply under construction, in one buffer that is used again and again. Each encoder starts the reply to
 * `request`, fills in a body and returns the byte count to write to the device.
 */
export class ReplyMessage {
  readonly bytes: Buffer;
  readonly #words: Uint32Array;
  readonly #view: DataView;

  /** Bodies of up to `bodyBytesMax`; larger ones are a programmer's error and throw a RangeError. */
  constructor(bodyBytesMax: number) {
    const memory = new ArrayBuffer(replyHeaderBytes + bodyBytesMax);
    this.bytes = Buffer.from(memory);
    this.#words = new Uint32Array(memory, 0, memory.byteLength >>> 2);
    this.#view = new DataView(memory);
  }

  /** A reply without a body: `result` is 0 or a negated errno. */
  status(request: RequestMessage, result: number): number {
    return this.#finish(request, result, 0);
  }

  init(request: RequestMessage, agreed: Negotiation, readAheadBytes: number): number {
    const byteCount = encodeInitBody(this.#view, replyHeaderBytes, agreed, readAheadBytes);
    return this.#finish(request, 0, byteCount);
  }

  /** struct fuse_entry_out. */
  entry(request: RequestMessage, attributes: Attributes, validity: Validity): number {
    return this.#finish(request, 0, this.#putEntry(replyHeaderBytes, attributes, validity));
  }

  /** struct fuse_attr_out. */
  attributes(request: RequestMessage, attributes: Attributes, attributesMs: number): number {
    this.#putDuration(replyHeaderBytes, replyHeaderBytes + 8, attributesMs);
    this.#put32(replyHeaderBytes + 12, 0);
    this.#putAttributes(replyHeaderBytes + 16, attributes);
    return this.#finish(request, 0, 16 + attributeBytes);
  }

  /** struct fuse_open_out; `handle` is the kernel's number in two halves, `flags` are FOPEN_ flags. */
  opened(request: RequestMessage, handleLow: number, handleHigh: number, flags: number): number {
    this.#putOpened(replyHeaderBytes, handleLow, handleHigh, flags);
    return this.#finish(request, 0, 16);
  }

  /** struct fuse_entry_out and struct fuse_open_out: the answer to CREATE. */
  created(
    request: RequestMessage,
    attributes: Attributes,
    validity: Validity,
    handle: { readonly low: number; readonly high: number; readonly flags: number },
  ): number {
    const entryBytes = this.#putEntry(replyHeaderBytes, attributes, validity);
    this.#putOpened(replyHeaderBytes + entryBytes, handle.low, handle.high, handle.flags);
    return this.#finish(request, 0, entryBytes + 16);
  }

  /** struct fuse_write_out. */
  written(request: RequestMessage, byteCount: number): number {
    this.#put32(replyHeaderBytes, byteCount);
    this.#put32(replyHeaderBytes + 4, 0);
    return this.#finish(request, 0, 8);
  }

  /** The bytes that a READ asked for, or fewer at the end of the file. */
  data(request: RequestMessage, data: Uint8Array): number {
    this.bytes.set(data, replyHeaderBytes);
    return this.#finish(request, 0, data.length);
  }

  /** struct fuse_statfs_out. */
  statistics(request: RequestMessage, statistics: FileSystemStatistics): number {
    const body = replyHeaderBytes;
    this.#words.fill(0, body >>> 2, (body + 80) >>> 2);
    this.#put64(body, statistics.blocks);
    this.#put64(body + 8, statistics.freeBlocks);
    this.#put64(body + 16, statistics.freeBlocks);
    this.#put64(body + 24, statistics.files);
    this.#put64(body + 32, statistics.freeFiles);
    this.#put32(body + 40, statistics.blockBytes);
    this.#put32(body + 44, statistics.nameBytesMax);
    this.#put32(body + 48, statistics.blockBytes);
    return this.#finish(request, 0, 80);
  }

  /** A directory listing that `DirectoryListing` has put behind the header. */
  listing(request: RequestMessage, byteCount: number): number {
    return this.#finish(request, 0, byteCount);
  }

  /**
   * Puts one struct fuse_dirent at `offset` of the body, padded to 8 bytes, unless it would pass `limit`; returns
   * the offset behind it, or `offset` itself when it did not fit. `nextOffset` continues the listing after it.
   */
  putDirectoryEntry(
    offset: number,
    limit: number,
    entry: { readonly name: Buffer; readonly node: number; readonly type: number },
    nextOffset: number,
  ): number {
    const end = offset + directoryEntryBytes(entry.name);
    if (end > limit) return offset;
    const at = replyHeaderBytes + offset;
    this.#put64(at, entry.node);
    this.#put64(at + 8, nextOffset);
    this.#put32(at + 16, entry.name.length);
    this.#put32(at + 20, (entry.type >>> 12) & 0xf);
    this.bytes.set(entry.name, at + 24);
    this.bytes.fill(0, at + 24 + entry.name.length, replyHeaderBytes + end);
    return end;
  }

  /** Puts the struct fuse_entry_out that precedes a dirent in READDIRPLUS; null attributes: not looked up. */
  putListedEntry(offset: number, attributes: Attributes | null, validity: Validity): number {
    const at = replyHeaderBytes + offset;
    if (attributes === null) this.#words.fill(0, at >>> 2, (at + listedEntryBytes) >>> 2);
    else this.#putEntry(at, attributes, validity);
    return offset + listedEntryBytes;
  }

  #finish(request: RequestMessage, result: number, bodyBytes: number): number {
    const byteCount = replyHeaderBytes + bodyBytes;
    this.#words[0] = byteCount;
    this.#words[1] = result;
    this.#words[2] = request.uniqueLow;
    this.#words[3] = request.uniqueHigh;
    return byteCount;
  }

  #putEntry(at: number, attributes: Attributes, validity: Validity): number {
    this.#put64(at, attributes.node);
    // Node numbers are never used twice, so all are of generation 0.
    this.#put64(at + 8, 0);
    this.#putDuration(at + 16, at + 32, validity.entryMs);
    this.#putDuration(at + 24, at + 36, validity.attributesMs);
    this.#putAttributes(at + 40, attributes);
    return 40 + attributeBytes;
  }

  #putAttributes(at: number, attributes: Attributes): void {
    this.#put64(at, attributes.node);
    this.#put64(at + 8, attributes.sizeBytes);
    this.#put64(at + 16, Math.ceil(attributes.sizeBytes / statBlockBytes));
    this.#putTime(at + 24, at + 48, attributes.accessedAtUs);
    this.#putTime(at + 32, at + 52, attributes.modifiedAtUs);
    this.#putTime(at + 40, at + 56, attributes.changedAtUs);
    this.#put32(at + 60, attributes.mode);
    this.#put32(at + 64, attributes.linkCount);
    this.#put32(at + 68, attributes.uid);
    this.#put32(at + 72, attributes.gid);
    this.#put32(at + 76, 0);
    this.#put32(at + 80, preferredTransferBytes);
    this.#put32(at + 84, 0);
  }

  #putOpened(at: number, handleLow: number, handleHigh: number, flags: number): void {
    this.#put32(at, handleLow);
    this.#put32(at + 4, handleHigh);
    this.#put32(at + 8, flags);
    this.#put32(at + 12, 0);
  }

  #putTime(secondsAt: number, nanosecondsAt: number, timeUs: number): void {
    const seconds = Math.floor(timeUs / microsecondsPerSecond);
    this.#put64(secondsAt, seconds);
    const microseconds = timeUs - seconds * microsecondsPerSecond;
    this.#put32(nanosecondsAt, microseconds * nanosecondsPerMicrosecond);
  }

  #putDuration(secondsAt: number, nanosecondsAt: number, durationMs: number): void {
    this.#put64(secondsAt, Math.floor(durationMs / 1_000));
    this.#put32(nanosecondsAt, (durationMs % 1_000) * 1_000_000);
  }

  #put32(at: number, value: number): void {
    this.#words[at >>> 2] = value;
  }

  /** Two's complement, so a time before the epoch is right too. */
  #put64(at: number, value: number): void {
    this.#words[at >>> 2] = value;
    this.#words[(at >>> 2) + 1] = Math.floor(value / twoTo32);
  }
}

/** What READDIRPLUS puts before each dirent. */
export const listedEntryBytes = 40 + attributeBytes;

/** The size of a struct fuse_dirent with this name, padded to 8 bytes (FUSE_DIRENT_ALIGN). */
export function directoryEntryBytes(name: Uint8Array): number {
  return (24 + name.length + 7) & ~7;
}
