import assert from 'node:assert';
import { createHash } from 'node:crypto';

import { ByteReader, MalformedBytes } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';
import { readEpoch, writeEpoch } from './epoch-codec.ts';
import { RecordReader, RecordWriter } from './frame-record-codec.ts';
import { streamKinds, type Frame, type FrameHeader } from './frame.ts';
import { vmIdSchema, type VmId } from './vm-descriptor.ts';

/*
 * A frame, version 1. Lengths and counts are varints (LEB128, shortest form), other numbers little-endian.
 *
 *   magic 'I', version 1
 *   header     stream kind (1 byte), VM id (text), epoch number (varint), nonce (8 bytes), seq (varint),
 *              previous hash (32 bytes), produced at (varint, µs)
 *   body       record count, records (frame-record-codec.ts)
 *   signature  length, bytes; length 0 while nothing signs. It covers everything before its length.
 *
 * One frame has exactly one encoding: the same frame gives the same bytes, so the same hash.
 * A new version gets a new number here; decoders keep reading the versions that logs may still hold.
 */
const magic = 0x49;
const version = 1;
const hashBytes = 32;
const signatureBytesMax = 512;

/** The largest frame that is made, sent or taken in. */
export const frameBytesMax = 16 * 1_024 * 1_024;

/** `previousHash` of an epoch's first frame. */
export const firstPreviousHash: Uint8Array = new Uint8Array(hashBytes);

/** Why bytes are no frame. `offset` is where in the bytes. */
export interface FrameProblem {
  readonly code: 'too-large' | 'unknown-version' | 'malformed';
  readonly offset: number;
  readonly rule: string;
}

export type DecodedFrame =
  | { readonly ok: true; readonly frame: Frame; readonly signature: Uint8Array }
  | { readonly ok: false; readonly problem: FrameProblem };

export type DecodedHeader =
  | { readonly ok: true; readonly header: FrameHeader }
  | { readonly ok: false; readonly problem: FrameProblem };

/**
 * The bytes of `frame`, the same ones every time. Text has to be well-formed Unicode.
 * @throws RangeError when the frame would exceed {@link frameBytesMax}.
 */
export function encodeFrame(frame: Frame, signature: Uint8Array = new Uint8Array()): Uint8Array {
  const writer = new ByteWriter();
  writer.byte(magic);
  writer.byte(version);
  writeHeader(writer, frame.header);
  writer.varint(frame.records.length);
  const records = new RecordWriter(writer, frame.header.producedAtUs);
  for (const record of frame.records) records.write(record);
  assert(signature.length <= signatureBytesMax);
  writer.bytes(signature);
  if (writer.length > frameBytesMax) {
    throw new RangeError(
      `a frame of ${writer.length} bytes exceeds ${frameBytesMax}: split its records`,
    );
  }
  return writer.finish();
}

/** Decodes any bytes: never throws, takes time and memory in proportion to their number. Byte values are views. */
export function decodeFrame(bytes: Uint8Array): DecodedFrame {
  return guarded(bytes, (reader) => {
    const header = readHeader(reader);
    const recordCount = reader.varint();
    if (recordCount > reader.remaining) reader.fail('more records than bytes');
    const reading = new RecordReader(reader, header.producedAtUs);
    const records = Array.from({ length: recordCount }, () => reading.read());
    const signature = reader.bytes();
    if (signature.length > signatureBytesMax) reader.fail('signature too long');
    if (reader.remaining > 0) reader.fail('bytes after the signature');
    return { ok: true, frame: { header, records }, signature };
  });
}

/** The header alone, at a small part of the cost; the body is not looked at. */
export function decodeFrameHeader(bytes: Uint8Array): DecodedHeader {
  return guarded(bytes, (reader) => ({ ok: true, header: readHeader(reader) }));
}

/** SHA-256 of a whole encoded frame: what the next frame's header holds. */
export function frameHash(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

function guarded<Success>(
  bytes: Uint8Array,
  decode: (reader: ByteReader) => Success,
): Success | { readonly ok: false; readonly problem: FrameProblem } {
  if (bytes.length > frameBytesMax) {
    return problem('too-large', 0, `a frame has at most ${frameBytesMax} bytes`);
  }
  if (bytes[0] !== magic) return problem('malformed', 0, 'not a frame');
  if (bytes[1] !== version) {
    return problem(
      'unknown-version',
      1,
      `frame version ${bytes[1] ?? 'missing'}, known: ${version}`,
    );
  }
  try {
    return decode(new ByteReader(bytes, 2));
  } catch (error) {
    if (error instanceof MalformedBytes) return problem('malformed', error.offset, error.message);
    throw error;
  }
}

function problem(
  code: FrameProblem['code'],
  offset: number,
  rule: string,
): { readonly ok: false; readonly problem: FrameProblem } {
  return { ok: false, problem: { code, offset, rule } };
}

function writeHeader(writer: ByteWriter, header: FrameHeader): void {
  writer.byte(streamKinds.indexOf(header.stream.kind));
  writer.text(header.stream.vm);
  writeEpoch(writer, header.epoch);
  writer.varint(header.seq);
  assert(header.previousHash.length === hashBytes);
  writer.raw(header.previousHash);
  writer.varint(header.producedAtUs);
}

function readHeader(reader: ByteReader): FrameHeader {
  const kind = streamKinds[reader.byte()];
  if (kind === undefined) reader.fail('unknown stream kind');
  const vm = readVmId(reader);
  const epoch = readEpoch(reader);
  const seq = reader.varint();
  if (seq === 0) reader.fail('seq starts at 1');
  const previousHash = reader.raw(hashBytes);
  return { stream: { vm, kind }, epoch, seq, previousHash, producedAtUs: reader.varint() };
}

function readVmId(reader: ByteReader): VmId {
  const parsed = vmIdSchema.safeParse(reader.text());
  return parsed.success ? parsed.data : reader.fail('not a VM id');
}
