import assert from 'node:assert';

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { DirectoryHandles } from '../../../guest-agent/fuse/dev-fuse/directory-handles.ts';
import { listingBytesMax } from '../../../guest-agent/fuse/dev-fuse/directory-operations.ts';
import {
  canWrite,
  fileSystemHandle,
  incarnationsMax,
  isInherited,
  kernelHandle,
} from '../../../guest-agent/fuse/dev-fuse/kernel-handle.ts';
import { operationTable } from '../../../guest-agent/fuse/dev-fuse/operation-table.ts';
import { SessionState } from '../../../guest-agent/fuse/dev-fuse/session-state.ts';
import {
  decodeBatchForget,
  decodeCreate,
  decodeName,
  decodeRename2,
  decodeSetattr,
  decodeWriteData,
} from '../../../guest-agent/fuse/protocol/decode.ts';
import { initFlag2, negotiate } from '../../../guest-agent/fuse/protocol/init.ts';
import { opcode, opcodeCount } from '../../../guest-agent/fuse/protocol/opcodes.ts';
import { ReplyMessage } from '../../../guest-agent/fuse/protocol/reply-message.ts';
import { RequestMessage } from '../../../guest-agent/fuse/protocol/request-message.ts';
import { MemoryFileSystem } from '../../support/memory-file-system.ts';

const bufferBytes = 8_192;
const EINVAL = -22;
const EFBIG = -27;
const EILSEQ = -84;
const EPROTO = -71;
const ENOSYS = -38;

/** A request as the kernel lays it out: 40 bytes of header, then `body`. */
function request(operation: number, body: Uint8Array, node = 1n, unique = 2n): RequestMessage {
  const bytes = Buffer.from(new ArrayBuffer(bufferBytes));
  const byteCount = 40 + body.length;
  bytes.writeUInt32LE(byteCount, 0);
  bytes.writeUInt32LE(operation, 4);
  bytes.writeBigUInt64LE(unique, 8);
  bytes.writeBigUInt64LE(node, 16);
  bytes.writeUInt32LE(1_000, 24);
  bytes.set(body, 40);
  const message = new RequestMessage(bytes);
  assert(message.receive(byteCount));
  return message;
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, index * 4);
  return bytes;
}

function session(): SessionState {
  return new SessionState({
    fileSystem: new MemoryFileSystem({ nowUs: () => 1_700_000_000_000_000 }),
    reply: new ReplyMessage(listingBytesMax),
    directories: new DirectoryHandles(),
    incarnation: 0,
    negotiation: undefined,
    declined2: 0,
  });
}

/** Whether the reply in `state` is one that the kernel takes for `message`; FORGET has none. */
function isAnswer(state: SessionState, message: RequestMessage, byteCount: number): boolean {
  if (message.opcode === opcode.forget || message.opcode === opcode.batchForget) {
    return byteCount === 0;
  }
  const reply = state.reply.bytes;
  const result = reply.readInt32LE(4);
  return (
    reply.readUInt32LE(0) === byteCount &&
    reply.readBigUInt64LE(8) === message.unique &&
    result <= 0 &&
    result > -512
  );
}

const nameIn = (body: Buffer) => decodeName(request(opcode.lookup, body));

const offer = (major: number, minor: number, flags: number, flags2: number) =>
  negotiate(request(opcode.init, words(major, minor, 131_072, flags, flags2, 0)));

/** A handle that an earlier agent gave out. */
function inherited(writes: boolean): readonly [number, number] {
  const { low, high } = kernelHandle(1, writes, 3);
  return [low, high];
}

describe('decoders', () => {
  test('names that are not UTF-8: EILSEQ; empty, unterminated or with a slash: EINVAL', () => {
    expect(nameIn(Buffer.from('größe\0'))).toBe('größe');
    expect(nameIn(Buffer.from([0x63, 0xe9, 0]))).toBe(EILSEQ);
    expect(nameIn(Buffer.from('endless'))).toBe(EINVAL);
    expect(nameIn(Buffer.from('\0'))).toBe(EINVAL);
    expect(nameIn(Buffer.from('a/b\0'))).toBe(EINVAL);
    expect(nameIn(Buffer.alloc(0))).toBe(EINVAL);
  });

  test('CREATE: flags, mode, umask, open_flags, name', () => {
    const body = Buffer.concat([words(0o101, 0o100644, 0o22, 0), Buffer.from('cpu.csv\0')]);
    expect(decodeCreate(request(opcode.create, body))).toEqual({
      openFlags: 0o101,
      mode: 0o100644,
      name: 'cpu.csv',
    });
  });

  test('RENAME2: new directory, flags, two names', () => {
    const body = Buffer.concat([words(7, 0, 1, 0), Buffer.from('old\0new\0')]);
    expect(decodeRename2(request(opcode.rename2, body))).toEqual({
      newParent: 7,
      flags: 1,
      name: 'old',
      newName: 'new',
    });
    const cut = Buffer.concat([words(7, 0, 1, 0), Buffer.from('old\0')]);
    expect(decodeRename2(request(opcode.rename2, cut))).toBe(EINVAL);
  });

  test('SETATTR: only what `valid` names, times before 1970 too', () => {
    const body = Buffer.alloc(88);
    body.writeUInt32LE(0b101001, 0); // mode, size, modification time
    body.writeUInt32LE(5, 16);
    body.writeBigInt64LE(-1n, 40);
    body.writeUInt32LE(250_000_999, 60);
    body.writeUInt32LE(0o100600, 68);
    expect(decodeSetattr(request(opcode.setattr, body))).toEqual({
      namesHandle: false,
      change: { sizeBytes: 5, mode: 0o100600, modifiedAtUs: -750_000 },
    });
    expect(decodeSetattr(request(opcode.setattr, body.subarray(0, 80)))).toBe(EINVAL);
  });

  test('WRITE: a request that promises more than it holds gives EINVAL', () => {
    const head = words(1, 0, 0, 0, 4, 0, 0, 0, 0, 0);
    const whole = decodeWriteData(
      request(opcode.write, Buffer.concat([head, Buffer.from('1,2\n')])),
    );
    expect(Buffer.from(whole as Uint8Array).toString()).toBe('1,2\n');
    const cut = request(opcode.write, Buffer.concat([head, Buffer.from('1,')]));
    expect(decodeWriteData(cut)).toBe(EINVAL);
  });

  test('BATCH_FORGET: takes the entries that are there, whatever it promises', () => {
    const taken: number[][] = [];
    const body = words(1_000_000, 0, 5, 0, 2, 0, 6, 0, 1, 0, 7, 0);
    decodeBatchForget(request(opcode.batchForget, body), (node, count) => {
      taken.push([node, count]);
    });
    expect(taken).toEqual([
      [5, 2],
      [6, 1],
    ]);
  });

  test('INIT: takes no locks and no write-back cache; refuses other protocols', () => {
    const agreed = offer(7, 45, 0xffffffff, 0xffffffff);
    expect(agreed).toMatchObject({
      kernelMinor: 45,
      flags2: initFlag2.directIoAllowsMmap | initFlag2.resend,
    });
    const { flags } = agreed as { flags: number };
    const refused = { posixLocks: 1 << 1, flockLocks: 1 << 10, writeback: 1 << 16 };
    for (const flag of Object.values(refused)) expect(flags & flag).toBe(0);
    expect(offer(7, 37, 0, 0xffffffff)).toEqual({ kernelMinor: 37, flags: 0, flags2: 0 });
    expect(offer(8, 0, 0, 0)).toBe(EPROTO);
    expect(offer(7, 12, 0, 0)).toBe(EPROTO);
  });
});

describe('kernel handles', () => {
  test('tell the incarnation, whether they can write, and the file system handle', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 48 - 1 }),
        fc.boolean(),
        fc.integer({ min: 0, max: incarnationsMax - 1 }),
        (handle, writes, incarnation) => {
          const { low, high } = kernelHandle(handle, writes, incarnation);
          const message = request(opcode.flush, words(low, high, 0, 0, 0, 0));
          expect(fileSystemHandle(message)).toBe(handle);
          expect(canWrite(message)).toBe(writes);
          expect(isInherited(message, incarnation)).toBe(false);
          expect(isInherited(message, (incarnation + 1) % incarnationsMax)).toBe(true);
        },
      ),
    );
  });
});

describe('operations', () => {
  test('truncated or malformed requests never crash the loop: every reply is well-formed', () => {
    const state = session();
    const outcome = fc.check(
      fc.property(
        fc.nat({ max: opcodeCount }),
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc
            .tuple(fc.array(fc.nat({ max: 9 }), { maxLength: 24 }), fc.string({ maxLength: 9 }))
            .map(([fields, name]) =>
              Buffer.concat([words(...fields), Buffer.from(`${name}\0x\0`)]),
            ),
        ),
        fc.bigInt({ min: 1n, max: 12n }),
        fc.bigInt({ min: 2n, max: 2n ** 64n - 1n }),
        (operation, body, node, unique) => {
          const message = request(operation, body, node, unique);
          const byteCount = operationTable[operation]?.(state, message);
          return byteCount === undefined || isAnswer(state, message, byteCount);
        },
      ),
      { numRuns: 20_000 },
    );
    expect(fc.defaultReportMessage(outcome)).toBeUndefined();
  });

  test('what a read(2) returned that is no whole request is not taken', () => {
    const bytes = Buffer.from(new ArrayBuffer(bufferBytes));
    bytes.writeUInt32LE(64, 0);
    const message = new RequestMessage(bytes);
    expect(message.receive(0)).toBe(false);
    expect(message.receive(39)).toBe(false);
    expect(message.receive(48)).toBe(false);
    expect(message.receive(64)).toBe(true);
  });

  test('FALLOCATE of more than a file may hold: EFBIG, and nothing is made ready for it', () => {
    const state = session();
    const created = Buffer.concat([words(0o102, 0o100644, 0, 0), Buffer.from('f\0')]);
    operationTable[opcode.create]?.(state, request(opcode.create, created));
    const node = state.reply.bytes.readBigUInt64LE(16);
    const handleAt = 16 + 128;
    const [low, high] = [0, 4].map((offset) => state.reply.bytes.readUInt32LE(handleAt + offset));
    for (const [lengthLow, lengthHigh] of [
      [0, 2],
      [0, 0x8000_0000],
      [0xffff_ffff, 0xffff_ffff],
    ] as const) {
      const body = words(low ?? 0, high ?? 0, 0, 0, lengthLow, lengthHigh, 0, 0);
      operationTable[opcode.fallocate]?.(state, request(opcode.fallocate, body, node));
      expect(state.reply.bytes.readInt32LE(4)).toBe(EFBIG);
    }
  });

  test('FLUSH never answers ENOSYS', () => {
    const state = session();
    const byteCount = operationTable[opcode.flush]?.(
      state,
      request(opcode.flush, words(99, 0, 0, 0, 0, 0)),
    );
    expect(byteCount).toBe(16);
    expect(state.reply.bytes.readInt32LE(4)).not.toBe(ENOSYS);
  });

  test('an inherited handle: writes and their flush give EIO, a reader is answered from the file', () => {
    const state = session();
    const run = (operation: number, body: Buffer, node = 1n): number => {
      operationTable[operation]?.(state, request(operation, body, node));
      return state.reply.bytes.readInt32LE(4);
    };
    const created = Buffer.concat([words(0o101, 0o100644, 0, 0), Buffer.from('f\0')]);
    expect(run(opcode.create, created)).toBe(0);
    const node = state.reply.bytes.readBigUInt64LE(16);
    const data = Buffer.from('1,2\n');
    const write = Buffer.concat([words(...inherited(true), 0, 0, 4, 0, 0, 0, 0, 0), data]);
    expect(run(opcode.write, write, node)).toBe(-5);
    expect(run(opcode.flush, words(...inherited(true), 0, 0, 0, 0), node)).toBe(-5);
    expect(run(opcode.fsync, words(...inherited(true), 0, 0), node)).toBe(-5);
    expect(run(opcode.flush, words(...inherited(false), 0, 0, 0, 0), node)).toBe(0);
    expect(run(opcode.read, words(...inherited(false), 0, 0, 100, 0, 0, 0, 0, 0), node)).toBe(0);
    expect(run(opcode.release, words(...inherited(true), 0, 0, 0, 0), node)).toBe(0);
  });

  test('attributes of a file that is open for writing are not cached, others for a second', () => {
    const state = session();
    const seconds = (): bigint => state.reply.bytes.readBigUInt64LE(16);
    const created = Buffer.concat([words(0o101, 0o100644, 0, 0), Buffer.from('f\0')]);
    operationTable[opcode.create]?.(state, request(opcode.create, created));
    const node = state.reply.bytes.readBigUInt64LE(16);
    const handleAt = 16 + 128;
    const handle = [
      state.reply.bytes.readUInt32LE(handleAt),
      state.reply.bytes.readUInt32LE(handleAt + 4),
    ] as const;
    operationTable[opcode.getattr]?.(state, request(opcode.getattr, words(0, 0, 0, 0), node));
    expect(seconds()).toBe(0n);
    const release = words(...handle, 0, 0, 0, 0);
    operationTable[opcode.release]?.(state, request(opcode.release, release, node));
    operationTable[opcode.getattr]?.(state, request(opcode.getattr, words(0, 0, 0, 0), node));
    expect(seconds()).toBe(1n);
  });
});
