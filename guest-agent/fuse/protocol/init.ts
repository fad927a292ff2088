import { errno } from '../errno.ts';
import type { Result } from '../file-system.ts';
import { requestHeaderBytes, type RequestMessage } from './request-message.ts';

/** The part of FUSE_INIT's flags that this implementation knows. `flags2` holds bits 32 to 63. */
export const initFlag = {
  asyncRead: 1 << 0,
  /** O_TRUNC arrives with OPEN instead of as a SETATTR before it. */
  atomicTruncate: 1 << 3,
  bigWrites: 1 << 5,
  autoInvalidateData: 1 << 12,
  readdirplus: 1 << 13,
  readdirplusAuto: 1 << 14,
  parallelDirectoryOperations: 1 << 18,
  /** Reading from an aborted connection gives ECONNABORTED, from an unmounted one ENODEV. */
  abortError: 1 << 21,
  maxPages: 1 << 22,
  extended: 1 << 30,
} as const;

export const initFlag2 = {
  /** From 6.6: FOPEN_DIRECT_IO handles can be mapped shared. */
  directIoAllowsMmap: 1 << (36 - 32),
  /** From 6.9: FUSE_NOTIFY_RESEND delivers unanswered requests again. */
  resend: 1 << (39 - 32),
} as const;

/** Largest WRITE: 1 MiB, 256 pages, the kernel's own upper bound before fs.fuse.max_pages_limit. */
export const writeBytesMax = 1 << 20;
const pageBytes = 4096;
/** Background requests (read-ahead, RELEASE) the kernel keeps in flight before it throttles. */
const backgroundRequestsMax = 64;
const congestionThreshold = 48;
/** Timestamps are microseconds; the kernel rounds its own alike. */
const timeGranularityNs = 1_000;
/** Replies are laid out as of 7.41; a newer kernel adapts to that. */
const minorSpoken = 41;
/** Linux 5.4; everything we send and read has been there since. Tested kernels begin with 6.1 (7.38 as Debian has it). */
const minorMin = 31;

/**
 * What kernel and agent agreed on at FUSE_INIT. It holds for as long as the mount does, so an agent that takes
 * over a connection gets it from the supervisor.
 */
export interface Negotiation {
  /** The kernel's protocol minor version. */
  readonly kernelMinor: number;
  /** Bits of initFlag in force. */
  readonly flags: number;
  /** Bits of initFlag2 in force. */
  readonly flags2: number;
}

const flagsWanted =
  initFlag.asyncRead |
  initFlag.atomicTruncate |
  initFlag.bigWrites |
  initFlag.autoInvalidateData |
  initFlag.readdirplus |
  initFlag.readdirplusAuto |
  initFlag.parallelDirectoryOperations |
  initFlag.abortError |
  initFlag.maxPages |
  initFlag.extended;
const flags2Wanted = initFlag2.directIoAllowsMmap | initFlag2.resend;

/**
 * Chooses from what the kernel offers in struct fuse_init_in {major, minor, max_readahead, flags, flags2}.
 * -EPROTO for another major version or one before 7.31 (Linux 5.4). POSIX_LOCKS and FLOCK_LOCKS are not taken:
 * locks stay in the kernel. Nor is WRITEBACK_CACHE: writes would arrive late and under a guessed handle. Bits of initFlag2
 * in `declined2` are not taken either.
 */
export function negotiate(message: RequestMessage, declined2 = 0): Negotiation | Result {
  const body = requestHeaderBytes;
  if (!message.hasBody(16)) return -errno.EINVAL;
  const kernelMinor = message.u32(body + 4);
  if (message.u32(body) !== 7 || kernelMinor < minorMin) return -errno.EPROTO;
  const offered = message.u32(body + 12);
  const offered2 = (offered & initFlag.extended) === 0 ? 0 : message.u32(body + 16);
  return {
    kernelMinor,
    flags: offered & flagsWanted,
    flags2: offered2 & flags2Wanted & ~declined2,
  };
}

/** struct fuse_init_out behind a reply header, 64 bytes; `readAheadBytes` is the kernel's own offer. */
export function encodeInitBody(
  view: DataView,
  offset: number,
  agreed: Negotiation,
  readAheadBytes: number,
): number {
  view.setUint32(offset, 7, true);
  view.setUint32(offset + 4, Math.min(agreed.kernelMinor, minorSpoken), true);
  view.setUint32(offset + 8, readAheadBytes, true);
  view.setUint32(offset + 12, agreed.flags, true);
  view.setUint16(offset + 16, backgroundRequestsMax, true);
  view.setUint16(offset + 18, congestionThreshold, true);
  view.setUint32(offset + 20, writeBytesMax, true);
  view.setUint32(offset + 24, timeGranularityNs, true);
  view.setUint16(offset + 28, writeBytesMax / pageBytes, true);
  view.setUint16(offset + 30, 0, true);
  view.setUint32(offset + 32, agreed.flags2, true);
  for (let unused = offset + 36; unused < offset + 64; unused += 4) view.setUint32(unused, 0, true);
  return 64;
}

/** The kernel's read-ahead offer, echoed in the reply. */
export function decodeReadAheadBytes(message: RequestMessage): number {
  return message.u32(requestHeaderBytes + 8);
}
