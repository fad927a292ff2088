import { errno } from '../errno.ts';
import { deferred, type HandleId, type Result } from '../file-system.ts';
import { opensForReadingAndWriting, opensForWriting } from '../open-flags.ts';
import {
  attributeHandleOffset,
  decodeByteCount,
  decodeFallocate,
  decodeGetattrNamesHandle,
  decodeOffset,
  decodeOpenFlags,
  decodeSetattr,
  decodeWriteData,
} from '../protocol/decode.ts';
import type { RequestMessage } from '../protocol/request-message.ts';
import { canWrite, fileSystemHandle, isInherited, kernelHandle } from './kernel-handle.ts';
import type { SessionState } from './session-state.ts';

/*
 * Operations on nodes and open files. Each returns the byte count of the reply it has built, 0 for none. A handle
 * that an earlier agent gave out ("inherited") has lost what was written to it, so whatever would confirm those
 * writes fails with EIO; reading goes to the file.
 */

/** FOPEN_DIRECT_IO: no page cache, so every read is answered for its handle and every write comes at once. */
const directIo = 1 << 0;

/**
 * Before 6.6 a direct handle can't be mapped shared, and that needs O_RDWR; those handles go through the page cache,
 * which writes through and which every open of the file empties.
 */
export function openReplyFlags(session: SessionState, openFlags: number): number {
  if (session.directIoAllowsMmap) return directIo;
  return opensForReadingAndWriting(openFlags) ? 0 : directIo;
}

/** Replies with `result` now, or not at all when the store thread will. */
export function statusUnlessDeferred(
  session: SessionState,
  request: RequestMessage,
  result: Result,
): number {
  return result === deferred ? 0 : session.reply.status(request, result);
}

export function getAttributes(session: SessionState, request: RequestMessage): number {
  const handle = decodeGetattrNamesHandle(request) ? ownHandle(session, request) : undefined;
  const found = session.fileSystem.getAttributes(request.node, handle);
  if (typeof found === 'number') return session.reply.status(request, found);
  return session.reply.attributes(request, found, session.validity(found).attributesMs);
}

export function setAttributes(session: SessionState, request: RequestMessage): number {
  const body = decodeSetattr(request);
  if (typeof body === 'number') return session.reply.status(request, body);
  const handle = body.namesHandle ? ownHandle(session, request) : undefined;
  if (body.namesHandle && handle === undefined && body.change.sizeBytes !== undefined) {
    return session.reply.status(request, -errno.EIO);
  }
  const { caller, node } = request;
  const found = session.fileSystem.setAttributes(node, handle, body.change, caller);
  if (typeof found === 'number') return session.reply.status(request, found);
  return session.reply.attributes(request, found, session.validity(found).attributesMs);
}

/** The handle that GETATTR or SETATTR names; undefined for an inherited one, whose file still has attributes. */
function ownHandle(session: SessionState, request: RequestMessage): HandleId | undefined {
  return isInherited(request, session.incarnation, attributeHandleOffset)
    ? undefined
    : fileSystemHandle(request, attributeHandleOffset);
}

export function open(session: SessionState, request: RequestMessage): number {
  const openFlags = decodeOpenFlags(request);
  const opened = session.fileSystem.open(request.node, openFlags, request.caller);
  if (typeof opened === 'number') return session.reply.status(request, opened);
  const writes = opensForWriting(openFlags);
  if (writes) session.addWriter(request.node);
  const handle = kernelHandle(opened.handle, writes, session.incarnation);
  const flags = openReplyFlags(session, openFlags);
  return session.reply.opened(request, handle.low, handle.high, flags);
}

export function read(session: SessionState, request: RequestMessage): number {
  const byteCount = decodeByteCount(request);
  const data = isInherited(request, session.incarnation)
    ? readFile(session, request, byteCount)
    : session.fileSystem.read(
        request.node,
        fileSystemHandle(request),
        decodeOffset(request),
        byteCount,
      );
  if (typeof data === 'number') return session.reply.status(request, data);
  return session.reply.data(request, data.length > byteCount ? data.subarray(0, byteCount) : data);
}

/** Reads for an inherited handle: its own copy died, the file's last good save did not. */
function readFile(
  session: SessionState,
  request: RequestMessage,
  byteCount: number,
): Uint8Array | Result {
  const { node } = request;
  const opened = session.fileSystem.open(node, 0, request.caller);
  if (typeof opened === 'number') return -errno.EIO;
  try {
    return session.fileSystem.read(node, opened.handle, decodeOffset(request), byteCount);
  } finally {
    session.fileSystem.release(node, opened.handle);
  }
}

export function write(session: SessionState, request: RequestMessage): number {
  const data = decodeWriteData(request);
  if (typeof data === 'number') return session.reply.status(request, data);
  if (isInherited(request, session.incarnation)) return session.reply.status(request, -errno.EIO);
  const result = session.fileSystem.write(
    request.node,
    fileSystemHandle(request),
    decodeOffset(request),
    data,
    request.caller,
    request.unique,
  );
  if (result === deferred) return 0;
  return result < 0
    ? session.reply.status(request, result)
    : session.reply.written(request, result);
}

export function allocate(session: SessionState, request: RequestMessage): number {
  const body = decodeFallocate(request);
  if (typeof body === 'number') return session.reply.status(request, body);
  if (isInherited(request, session.incarnation)) return session.reply.status(request, -errno.EIO);
  const { offset, byteCount, mode } = body;
  const handle = fileSystemHandle(request);
  const result = session.fileSystem.allocate(request.node, handle, offset, byteCount, mode);
  return session.reply.status(request, result);
}

export function flush(session: SessionState, request: RequestMessage): number {
  if (isInherited(request, session.incarnation)) return confirmInherited(session, request);
  const { caller, node, unique } = request;
  const handle = fileSystemHandle(request);
  return statusUnlessDeferred(
    session,
    request,
    session.fileSystem.flush(node, handle, caller, unique),
  );
}

export function sync(session: SessionState, request: RequestMessage): number {
  if (isInherited(request, session.incarnation)) return confirmInherited(session, request);
  const handle = fileSystemHandle(request);
  return statusUnlessDeferred(
    session,
    request,
    session.fileSystem.sync(request.node, handle, request.unique),
  );
}

/** FLUSH or FSYNC of an inherited handle: nobody knows any more whether it had writes, unless it can't have. */
function confirmInherited(session: SessionState, request: RequestMessage): number {
  return session.reply.status(request, canWrite(request) ? -errno.EIO : 0);
}

export function release(session: SessionState, request: RequestMessage): number {
  if (!isInherited(request, session.incarnation)) {
    if (canWrite(request)) session.removeWriter(request.node);
    session.fileSystem.release(request.node, fileSystemHandle(request));
  }
  return session.reply.status(request, 0);
}
