import { errno } from '../errno.ts';
import type { Attributes, Result } from '../file-system.ts';
import { fileType, opensForWriting } from '../open-flags.ts';
import {
  decodeCreate,
  decodeMkdir,
  decodeMknod,
  decodeName,
  decodeRename,
  decodeRename2,
  type RenameBody,
} from '../protocol/decode.ts';
import type { RequestMessage } from '../protocol/request-message.ts';
import { openReplyFlags, statusUnlessDeferred } from './file-operations.ts';
import { kernelHandle } from './kernel-handle.ts';
import type { SessionState } from './session-state.ts';

/** Operations on names. Each returns the byte count of the reply it has built, 0 for none. */

export function lookup(session: SessionState, request: RequestMessage): number {
  const name = decodeName(request);
  if (typeof name === 'number') return session.reply.status(request, name);
  return replyEntry(session, request, session.fileSystem.lookup(request.node, name));
}

export function makeDirectory(session: SessionState, request: RequestMessage): number {
  const body = decodeMkdir(request);
  if (typeof body === 'number') return session.reply.status(request, body);
  const { caller, node } = request;
  const made = session.fileSystem.makeDirectory(node, body.name, body.mode, caller);
  return replyEntry(session, request, made);
}

export function makeNode(session: SessionState, request: RequestMessage): number {
  const body = decodeMknod(request);
  if (typeof body === 'number') return session.reply.status(request, body);
  if ((body.mode & fileType.mask) !== fileType.regular) {
    return session.reply.status(request, -errno.EPERM);
  }
  const { caller, node } = request;
  return replyEntry(
    session,
    request,
    session.fileSystem.makeNode(node, body.name, body.mode, caller),
  );
}

export function create(session: SessionState, request: RequestMessage): number {
  const body = decodeCreate(request);
  if (typeof body === 'number') return session.reply.status(request, body);
  const { name, mode, openFlags } = body;
  const { caller, node } = request;
  const made = session.fileSystem.create(node, name, mode, openFlags, caller);
  if (typeof made === 'number') return session.reply.status(request, made);
  const writes = opensForWriting(openFlags);
  if (writes) session.addWriter(made.opened.node);
  const handle = kernelHandle(made.opened.handle, writes, session.incarnation);
  return session.reply.created(request, made.attributes, session.validity(made.attributes), {
    low: handle.low,
    high: handle.high,
    flags: openReplyFlags(session, openFlags),
  });
}

export function unlink(session: SessionState, request: RequestMessage): number {
  const name = decodeName(request);
  if (typeof name === 'number') return session.reply.status(request, name);
  const { caller, node, unique } = request;
  return statusUnlessDeferred(
    session,
    request,
    session.fileSystem.unlink(node, name, caller, unique),
  );
}

export function removeDirectory(session: SessionState, request: RequestMessage): number {
  const name = decodeName(request);
  if (typeof name === 'number') return session.reply.status(request, name);
  const result = session.fileSystem.removeDirectory(request.node, name, request.caller);
  return session.reply.status(request, result);
}

export function rename(session: SessionState, request: RequestMessage): number {
  return move(session, request, decodeRename(request));
}

export function rename2(session: SessionState, request: RequestMessage): number {
  return move(session, request, decodeRename2(request));
}

function move(session: SessionState, request: RequestMessage, body: RenameBody | Result): number {
  if (typeof body === 'number') return session.reply.status(request, body);
  const { newParent, newName, name, flags } = body;
  const { caller, node, unique } = request;
  const result = session.fileSystem.rename(node, name, newParent, newName, flags, caller, unique);
  return statusUnlessDeferred(session, request, result);
}

function replyEntry(
  session: SessionState,
  request: RequestMessage,
  found: Attributes | Result,
): number {
  if (typeof found === 'number') return session.reply.status(request, found);
  return session.reply.entry(request, found, session.validity(found));
}
