import { errno } from '../errno.ts';
import { decodeBatchForget, decodeForgetCount } from '../protocol/decode.ts';
import { decodeReadAheadBytes, negotiate } from '../protocol/init.ts';
import { opcode, opcodeCount, type OpcodeName } from '../protocol/opcodes.ts';
import type { RequestMessage } from '../protocol/request-message.ts';
import * as directory from './directory-operations.ts';
import * as file from './file-operations.ts';
import * as names from './name-operations.ts';
import type { SessionState } from './session-state.ts';

/** Answers one request: the byte count of the reply it has built in `session.reply`, 0 when there is none now. */
export type Operation = (session: SessionState, request: RequestMessage) => number;

/**
 * What each opcode does. Three answers need a reason:
 * - ENOSYS, also for what is not listed, makes the kernel stop asking and do what it does without: xattrs then give
 *   EOPNOTSUPP, so that cp -p, rsync -X, tar and vim go on; lseek, copy_file_range and poll are done by the kernel;
 *   O_TMPFILE gives EOPNOTSUPP; INTERRUPT is not sent.
 * - FLUSH never answers ENOSYS: close(2) would stop being durable.
 * - Locks are never asked for, as they were not negotiated: they stay in the kernel.
 */
const operations: { readonly [Name in OpcodeName]?: Operation } = {
  init: initialize,
  destroy: succeed,
  lookup: names.lookup,
  forget,
  batchForget,
  getattr: file.getAttributes,
  setattr: file.setAttributes,
  mkdir: names.makeDirectory,
  rmdir: names.removeDirectory,
  mknod: names.makeNode,
  create: names.create,
  unlink: names.unlink,
  rename: names.rename,
  rename2: names.rename2,
  readlink: refuse(errno.EINVAL),
  symlink: refuse(errno.EPERM),
  link: refuse(errno.EPERM),
  open: file.open,
  read: file.read,
  write: file.write,
  flush: file.flush,
  fsync: file.sync,
  fallocate: file.allocate,
  release: file.release,
  opendir: directory.openDirectory,
  readdir: directory.readDirectory,
  readdirplus: directory.readDirectoryPlus,
  releasedir: directory.releaseDirectory,
  // What a directory holds is durable with the next commit of anything; there is nothing to wait for.
  fsyncdir: succeed,
  statfs: statistics,
  ioctl: refuse(errno.ENOTTY),
};

/** The same, indexed by opcode. */
export const operationTable: readonly (Operation | undefined)[] = indexByOpcode();

function indexByOpcode(): (Operation | undefined)[] {
  const table: (Operation | undefined)[] = Array.from({ length: opcodeCount });
  for (const [name, number] of Object.entries(opcode)) {
    table[number] = operations[name as OpcodeName];
  }
  return table;
}

function initialize(session: SessionState, request: RequestMessage): number {
  const agreed = negotiate(request, session.declined2);
  if (typeof agreed === 'number') return session.reply.status(request, agreed);
  session.negotiation = agreed;
  return session.reply.init(request, agreed, decodeReadAheadBytes(request));
}

function forget(session: SessionState, request: RequestMessage): number {
  session.fileSystem.forget(request.node, decodeForgetCount(request));
  return 0;
}

function batchForget(session: SessionState, request: RequestMessage): number {
  decodeBatchForget(request, (node, count) => {
    session.fileSystem.forget(node, count);
  });
  return 0;
}

function statistics(session: SessionState, request: RequestMessage): number {
  return session.reply.statistics(request, session.fileSystem.statistics());
}

function succeed(session: SessionState, request: RequestMessage): number {
  return session.reply.status(request, 0);
}

function refuse(code: number): Operation {
  return (session, request) => session.reply.status(request, -code);
}
