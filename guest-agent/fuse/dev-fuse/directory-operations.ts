import { errno } from '../errno.ts';
import type { Result } from '../file-system.ts';
import { decodeByteCount, decodeOffset } from '../protocol/decode.ts';
import { directoryEntryBytes, listedEntryBytes } from '../protocol/reply-message.ts';
import type { RequestMessage } from '../protocol/request-message.ts';
import { listedEntries, type ListedEntry } from './directory-handles.ts';
import { fileSystemHandle, isInherited, kernelHandle } from './kernel-handle.ts';
import type { SessionState } from './session-state.ts';

/* Operations on open directories. Each returns the byte count of the reply it has built. */

/** The largest listing in one reply, whatever the kernel offers room for. */
export const listingBytesMax = 128 * 1024;

export function openDirectory(session: SessionState, request: RequestMessage): number {
  const opened = session.directories.open();
  if (opened === undefined) return session.reply.status(request, -errno.ENFILE);
  const handle = kernelHandle(opened, false, session.incarnation);
  return session.reply.opened(request, handle.low, handle.high, 0);
}

export function readDirectory(session: SessionState, request: RequestMessage): number {
  const entries = listing(session, request);
  if (typeof entries === 'number') return session.reply.status(request, entries);
  const limit = Math.min(decodeByteCount(request), listingBytesMax);
  let end = 0;
  for (let index = decodeOffset(request); index < entries.length; index += 1) {
    const entry = entries[index];
    if (entry === undefined) break;
    const next = session.reply.putDirectoryEntry(end, limit, entry, index + 1);
    if (next === end) break;
    end = next;
  }
  return session.reply.listing(request, end);
}

/** READDIRPLUS: each entry with what LOOKUP would answer, and as many references as entries handed over. */
export function readDirectoryPlus(session: SessionState, request: RequestMessage): number {
  const entries = listing(session, request);
  if (typeof entries === 'number') return session.reply.status(request, entries);
  const limit = Math.min(decodeByteCount(request), listingBytesMax);
  let end = 0;
  for (let index = decodeOffset(request); index < entries.length; index += 1) {
    const entry = entries[index];
    if (entry === undefined) break;
    if (end + listedEntryBytes + directoryEntryBytes(entry.name) > limit) break;
    const direntAt = putLookedUp(session, request, entry, end);
    end = session.reply.putDirectoryEntry(direntAt, limit, entry, index + 1);
  }
  return session.reply.listing(request, end);
}

function putLookedUp(
  session: SessionState,
  request: RequestMessage,
  entry: ListedEntry,
  offset: number,
): number {
  const found = entry.isDot ? null : session.fileSystem.lookup(request.node, entry.text);
  // An entry that is gone since the snapshot is listed without attributes, as READDIR would.
  const attributes = found === null || typeof found === 'number' ? null : found;
  const validity =
    attributes === null ? { entryMs: 0, attributesMs: 0 } : session.validity(attributes);
  return session.reply.putListedEntry(offset, attributes, validity);
}

/** The snapshot that this listing continues; a new one at its beginning, or when an earlier agent had it. */
function listing(session: SessionState, request: RequestMessage): readonly ListedEntry[] | Result {
  const handle = fileSystemHandle(request);
  const isOwn = !isInherited(request, session.incarnation);
  if (isOwn && decodeOffset(request) > 0) {
    const known = session.directories.snapshot(handle);
    if (known !== null) return known;
  }
  const entries = session.fileSystem.readDirectory(request.node);
  if (typeof entries === 'number') return entries;
  const snapshot = listedEntries(request.node, entries);
  if (isOwn) session.directories.remember(handle, snapshot);
  return snapshot;
}

export function releaseDirectory(session: SessionState, request: RequestMessage): number {
  if (!isInherited(request, session.incarnation)) {
    session.directories.release(fileSystemHandle(request));
  }
  return session.reply.status(request, 0);
}
