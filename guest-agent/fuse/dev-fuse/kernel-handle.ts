import { handleOffset } from '../protocol/decode.ts';
import type { RequestMessage } from '../protocol/request-message.ts';

/**
 * The 64-bit handle number that the kernel keeps for an open file. It tells an agent that took over a connection
 * which handles its predecessors gave out, and whether those could have had writes that died with them:
 *
 *   bit 63        49 48        48 47                                        0
 *      | incarnation | can write |            the file system's handle         |
 */
export interface KernelHandle {
  readonly low: number;
  readonly high: number;
}

/** Incarnations of the agent on one connection; numbers wrap around here. */
export const incarnationsMax = 1 << 15;
const twoTo32 = 0x1_0000_0000;
const incarnationShift = 17;
const writableBit = 1 << 16;
const handleHighMask = 0xffff;

/** `handle` is below 2^48. */
export function kernelHandle(handle: number, writes: boolean, incarnation: number): KernelHandle {
  const handleHigh = Math.floor(handle / twoTo32) & handleHighMask;
  const high = (incarnation << incarnationShift) | (writes ? writableBit : 0) | handleHigh;
  return { low: handle >>> 0, high: high >>> 0 };
}

/** The file system's part of the handle that stands at `offset` of the request, whoever gave it out. */
export function fileSystemHandle(request: RequestMessage, offset = handleOffset): number {
  const high = request.u32(offset + 4);
  return request.u32(offset) + (high & handleHighMask) * twoTo32;
}

/** Whether the handle at `offset` of the request can write. */
export function canWrite(request: RequestMessage, offset = handleOffset): boolean {
  return (request.u32(offset + 4) & writableBit) !== 0;
}

/** Whether an earlier incarnation gave out the handle at `offset`: this one's file system lacks it. */
export function isInherited(
  request: RequestMessage,
  incarnation: number,
  offset = handleOffset,
): boolean {
  return request.u32(offset + 4) >>> incarnationShift !== incarnation;
}
