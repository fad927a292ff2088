import { errno } from '../errno.ts';
import type { AttributeChange, NodeId, Result } from '../file-system.ts';
import { requestHeaderBytes, type RequestMessage } from './request-message.ts';

/*
 * One decoder for each request body; layouts are those of include/uapi/linux/fuse.h, with offsets counted from
 * the start of the body. A body that is too short, or a name that is none, gives a negated errno instead.
 */

const body = requestHeaderBytes;
const microsecondsPerSecond = 1_000_000;
const nanosecondsPerMicrosecond = 1_000;

/** struct fuse_getattr_in {flags, dummy, fh}: whether a handle stands at `attributeHandleOffset`. */
export function decodeGetattrNamesHandle(message: RequestMessage): boolean {
  return (message.u32(body) & 1) !== 0;
}

export interface SetattrBody {
  /** Whether a handle stands at `attributeHandleOffset`. */
  readonly namesHandle: boolean;
  readonly change: AttributeChange;
}

/** Bits of fuse_setattr_in.valid. */
const valid = {
  mode: 1 << 0,
  uid: 1 << 1,
  gid: 1 << 2,
  size: 1 << 3,
  accessTime: 1 << 4,
  modificationTime: 1 << 5,
  handle: 1 << 6,
  accessTimeNow: 1 << 7,
  modificationTimeNow: 1 << 8,
} as const;

/** struct fuse_setattr_in, 88 bytes. */
export function decodeSetattr(message: RequestMessage): SetattrBody | Result {
  if (!message.hasBody(88)) return -errno.EINVAL;
  const mask = message.u32(body);
  const change: { -readonly [Key in keyof AttributeChange]: AttributeChange[Key] } = {};
  if (mask & valid.size) change.sizeBytes = message.u64(body + 16);
  if (mask & valid.mode) change.mode = message.u32(body + 68);
  if (mask & valid.uid) change.uid = message.u32(body + 76);
  if (mask & valid.gid) change.gid = message.u32(body + 80);
  if (mask & valid.accessTimeNow) change.accessedAtUs = 'now';
  else if (mask & valid.accessTime) change.accessedAtUs = timeUs(message, body + 32, body + 56);
  if (mask & valid.modificationTimeNow) change.modifiedAtUs = 'now';
  else if (mask & valid.modificationTime) {
    change.modifiedAtUs = timeUs(message, body + 40, body + 60);
  }
  return { namesHandle: (mask & valid.handle) !== 0, change };
}

function timeUs(message: RequestMessage, secondsOffset: number, nanosecondsOffset: number): number {
  const microseconds = Math.floor(message.u32(nanosecondsOffset) / nanosecondsPerMicrosecond);
  return message.i64(secondsOffset) * microsecondsPerSecond + microseconds;
}

/** LOOKUP, UNLINK, RMDIR: the body is the name. */
export function decodeName(message: RequestMessage): string | Result {
  return message.name(body);
}

export interface MakeBody {
  readonly mode: number;
  readonly name: string;
}

/** struct fuse_mknod_in {mode, rdev, umask, padding}, then the name. The kernel has applied the umask. */
export function decodeMknod(message: RequestMessage): MakeBody | Result {
  return made(message, message.u32(body), body + 16);
}

/** struct fuse_mkdir_in {mode, umask}, then the name. */
export function decodeMkdir(message: RequestMessage): MakeBody | Result {
  return made(message, message.u32(body), body + 8);
}

function made(message: RequestMessage, mode: number, nameOffset: number): MakeBody | Result {
  const name = message.name(nameOffset);
  return typeof name === 'number' ? name : { mode, name };
}

export interface RenameBody {
  readonly newParent: NodeId;
  /** As renameat2(2). */
  readonly flags: number;
  readonly name: string;
  readonly newName: string;
}

/** struct fuse_rename_in {newdir}, then both names. */
export function decodeRename(message: RequestMessage): RenameBody | Result {
  return renamed(message, 0, body + 8);
}

/** struct fuse_rename2_in {newdir, flags, padding}, then both names. */
export function decodeRename2(message: RequestMessage): RenameBody | Result {
  return renamed(message, message.u32(body + 8), body + 16);
}

function renamed(message: RequestMessage, flags: number, nameOffset: number): RenameBody | Result {
  const name = message.name(nameOffset);
  if (typeof name === 'number') return name;
  const newName = message.name(message.nameEnd(nameOffset) + 1);
  if (typeof newName === 'number') return newName;
  return { newParent: message.u64(body), flags, name, newName };
}

export interface CreateBody extends MakeBody {
  /** As open(2). */
  readonly openFlags: number;
}

/** struct fuse_create_in {flags, mode, umask, open_flags}, then the name. */
export function decodeCreate(message: RequestMessage): CreateBody | Result {
  const name = message.name(body + 16);
  if (typeof name === 'number') return name;
  return { openFlags: message.u32(body), mode: message.u32(body + 4), name };
}

/** struct fuse_open_in {flags, open_flags}. */
export function decodeOpenFlags(message: RequestMessage): number {
  return message.u32(body);
}

/** Where the 64-bit handle number stands in READ, READDIR, WRITE, FLUSH, FSYNC, RELEASE and FALLOCATE. */
export const handleOffset = body;
/** Where it stands in GETATTR and SETATTR. */
export const attributeHandleOffset = body + 8;

/** struct fuse_read_in {fh, offset, size, ...}, also of READDIR; struct fuse_write_in begins alike. */
export function decodeOffset(message: RequestMessage): number {
  return message.u64(body + 8);
}

export function decodeByteCount(message: RequestMessage): number {
  return message.u32(body + 16);
}

/** The bytes behind struct fuse_write_in (40 bytes), in place; -EINVAL when they are not all there. */
export function decodeWriteData(message: RequestMessage): Uint8Array | Result {
  const byteCount = decodeByteCount(message);
  if (!message.hasBody(40 + byteCount)) return -errno.EINVAL;
  return message.bytes.subarray(body + 40, body + 40 + byteCount);
}

export interface FallocateBody {
  readonly offset: number;
  readonly byteCount: number;
  /** As fallocate(2). */
  readonly mode: number;
}

/** struct fuse_fallocate_in {fh, offset, length, mode, padding}, 32 bytes. */
export function decodeFallocate(message: RequestMessage): FallocateBody | Result {
  if (!message.hasBody(32)) return -errno.EINVAL;
  return {
    offset: message.u64(body + 8),
    byteCount: message.u64(body + 16),
    mode: message.u32(body + 24),
  };
}

/** struct fuse_forget_in {nlookup}. */
export function decodeForgetCount(message: RequestMessage): number {
  return message.u64(body);
}

/** struct fuse_batch_forget_in {count, dummy} and its struct fuse_forget_one {nodeid, nlookup}. */
export function decodeBatchForget(
  message: RequestMessage,
  take: (node: NodeId, count: number) => void,
): void {
  const count = message.u32(body);
  for (let index = 0, offset = body + 8; index < count; index += 1, offset += 16) {
    if (offset + 16 > message.byteCount) return;
    take(message.u64(offset), message.u64(offset + 8));
  }
}
