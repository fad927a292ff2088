import { kernelHandle } from '../../guest-agent/fuse/dev-fuse/kernel-handle.ts';
import { opcode, opcodeCount } from '../../guest-agent/fuse/protocol/opcodes.ts';
import type { FuzzRandom } from './fuzz-random.ts';
import { joinParts, partsIn } from './parts.ts';

const headerBytes = 40;
const numbers = [
  0,
  1,
  2,
  3,
  4,
  100,
  101,
  102,
  0o101,
  0o100644,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_ffff,
  1 << 16,
  4_096,
];
const names = [
  'a',
  'b',
  'unencrypted',
  'encrypted',
  '.a.swp',
  'a~',
  'd',
  'x'.repeat(255),
  '..',
  '',
];

/** A request as the kernel lays it out: 40 bytes of header, then `body`. */
export function fuseRequest(operation: number, node: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(headerBytes + body.length, 0);
  header.writeUInt32LE(operation, 4);
  header.writeUInt32LE(2, 8);
  header.writeUInt32LE(node, 16);
  header.writeUInt32LE(1_000, 24);
  return Buffer.concat([header, body]);
}

export function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, index * 4);
  return bytes;
}

/** The requests of an input, each with the length that it has and a token of its own: else nobody would look at them. */
export function* requestsIn(input: Uint8Array): Generator<Buffer> {
  let token = 2n;
  for (const part of partsIn(input)) {
    if (part.length >= headerBytes) {
      part.writeUInt32LE(part.length, 0);
      part.writeBigUInt64LE(token, 8);
      token += 2n;
    }
    yield part;
  }
}

/** Mounted, a file made in a directory, written, saved, read, renamed, removed. `file` is the number of the first node and of the first handle. */
export function sampleSession(file: number): Buffer {
  const handle = (writes: boolean): Buffer => {
    const { low, high } = kernelHandle(file, writes, 0);
    return words(low, high);
  };
  const area = 3;
  const csv = Buffer.from('a,b\n1,2\n');
  return joinParts([
    fuseRequest(
      opcode.init,
      0,
      words(7, 41, 131_072, 0xffff_ffff, 0xffff_ffff, ...Array(11).fill(0)),
    ),
    fuseRequest(opcode.lookup, 1, name('unencrypted')),
    fuseRequest(opcode.create, area, Buffer.concat([words(0o102, 0o100644, 0, 0), name('f')])),
    fuseRequest(
      opcode.write,
      file,
      Buffer.concat([handle(true), words(0, 0, csv.length, 0, 0, 0, 0, 0), csv]),
    ),
    fuseRequest(opcode.flush, file, Buffer.concat([handle(true), words(0, 0, 0, 0)])),
    fuseRequest(opcode.fallocate, file, Buffer.concat([handle(true), words(0, 0, 9, 0, 0, 0)])),
    fuseRequest(opcode.fsync, file, Buffer.concat([handle(true), words(0, 0)])),
    fuseRequest(opcode.getattr, file, words(0, 0, 0, 0)),
    fuseRequest(
      opcode.setattr,
      file,
      Buffer.concat([words(0b1001, 0, 0, 0, 3, 0), Buffer.alloc(64)]),
    ),
    fuseRequest(
      opcode.read,
      file,
      Buffer.concat([handle(true), words(0, 0, 4_096, 0, 0, 0, 0, 0)]),
    ),
    fuseRequest(opcode.release, file, Buffer.concat([handle(true), words(0, 0, 0, 0)])),
    fuseRequest(opcode.rename2, area, Buffer.concat([words(area, 0, 0, 0), name('f'), name('g')])),
    fuseRequest(opcode.opendir, area, words(0, 0)),
    fuseRequest(opcode.readdirplus, area, words(1, 0, 0, 0, 4_096, 0, 0, 0, 0, 0)),
    fuseRequest(opcode.releasedir, area, words(1, 0, 0, 0, 0, 0)),
    fuseRequest(opcode.mkdir, area, Buffer.concat([words(0o755, 0), name('d')])),
    fuseRequest(opcode.statfs, 1, Buffer.alloc(0)),
    fuseRequest(opcode.unlink, area, name('g')),
    fuseRequest(opcode.rmdir, area, name('d')),
    fuseRequest(opcode.batchForget, 0, words(1, 0, area, 0, 1, 0)),
    fuseRequest(opcode.destroy, 0, Buffer.alloc(0)),
  ]);
}

/** Some requests of any operation with fields that mean something, in any order. */
export function randomSession(random: FuzzRandom): Buffer {
  const request = (): Buffer => {
    const fields = words(...Array.from({ length: random.below(22) }, () => random.pick(numbers)));
    const text = Buffer.from(`${random.pick(names)}\0${random.pick(names)}\0`);
    const body = Buffer.concat([fields, text]);
    return fuseRequest(random.below(opcodeCount), random.pick(numbers), body);
  };
  return joinParts(Array.from({ length: 1 + random.below(40) }, request));
}

function name(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}
