import assert from 'node:assert';
import { createHash } from 'node:crypto';

import { ByteReader, MalformedBytes } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';
import { readEpoch, writeEpoch } from './epoch-codec.ts';
import { RecordReader, RecordWriter } from './frame-record-codec.ts';
import { streamKinds, type Frame, type FrameHeader, type FrameRecord } from './frame.ts';
import { vmIdSchema, type VmId } from './vm-descriptor.ts';

/*
 * A frame. Lengths and counts are varints (LEB128, shortest form), other numbers little-endian.
 *
 *   magic 'I', version
 *   header     stream kind (1 byte), VM id (text), epoch number (varint), nonce (8 bytes), seq (varint),
 *              previous hash (32 bytes), produced at (varint, µs)
 *
 * Version 2, which is what is written:
 *   body kind  1 byte: 0 clear, 1 sealed, 2 sealed and bringing its key
 *   clear      record count, records (frame-record-codec.ts)
 *   sealed     key id (8 bytes); kind 2: key envelope (length, a CMS message); then the clear body encrypted
 *              (AES-256-GCM), and the tag (16 bytes). Everything before the encrypted bytes is authenticated with them.
 *   signature  its bytes, and then their number (1 byte), so that it is found from the end, without any key;
 *              0 where nothing signs. It covers everything before it.
 *
 * Version 1, which logs may still hold:
 *   clear      record count, records
 *   signature  length, bytes; it covers everything before its length
 *
 * The header is in the clear in every version: who relays frames needs no key. One frame has exactly one encoding under
 * one protection: the same frame gives the same bytes, so the same hash. A new version gets a new number here.
 */
const magic = 0x49;
const version = 2;
const knownVersions: readonly number[] = [1, version];
const bodyKinds = { clear: 0, sealed: 1, sealedWithKey: 2 } as const;
const hashBytes = 32;
const signatureBytesMax = 255;
const versionOneSignatureBytesMax = 512;
const sealTagBytes = 16;

/** The largest frame that is made, sent or taken in. */
export const frameBytesMax = 16 * 1_024 * 1_024;
/** Of the id that names a content key in each frame sealed under it. */
export const contentKeyIdBytes = 8;
/** A CMS message for sixteen recipients with RSA keys of 8,192 bits is smaller. */
export const keyEnvelopeBytesMax = 65_536;

/** `previousHash` of an epoch's first frame. */
export const firstPreviousHash: Uint8Array = new Uint8Array(hashBytes);

/** How one frame is protected on its way; nothing: in the clear, unsigned. */
export interface FrameProtection {
  readonly seal?: BodySeal;
  /** The signature of these bytes, 1 to 255 bytes. */
  readonly sign?: (signedBytes: Uint8Array) => Uint8Array;
}

/** Encrypts one body. */
export interface BodySeal {
  readonly keyId: Uint8Array;
  /** The key in a CMS message for those who may open it; null where an earlier frame brought it. */
  readonly keyEnvelope: Uint8Array | null;
  /** As many bytes as `body`, and the tag. */
  readonly encrypt: (body: Uint8Array, associatedData: Uint8Array) => Uint8Array;
}

/** What a frame shows of a body that it keeps sealed. */
export interface SealedBody {
  readonly header: FrameHeader;
  readonly keyId: Uint8Array;
  readonly keyEnvelope: Uint8Array | null;
  readonly associatedData: Uint8Array;
  /** The tag is its last 16 bytes. */
  readonly encrypted: Uint8Array;
}

/** The body in the clear, or why it stays shut: the key is not known, or the bytes are not what was sealed. */
export type OpenedBody =
  | { readonly ok: true; readonly body: Uint8Array }
  | { readonly ok: false; readonly code: 'key-unknown' | 'not-authentic' };

export type BodyOpener = (sealed: SealedBody) => OpenedBody;

/** Why bytes are no frame, or none that can be read here. `offset` is where in the bytes. */
export interface FrameProblem {
  readonly code: 'too-large' | 'unknown-version' | 'malformed' | 'key-unknown' | 'not-authentic';
  readonly offset: number;
  readonly rule: string;
}

interface Refused {
  readonly ok: false;
  readonly problem: FrameProblem;
}

export type DecodedFrame =
  | { readonly ok: true; readonly frame: Frame; readonly signature: Uint8Array }
  | Refused;

export type DecodedHeader = { readonly ok: true; readonly header: FrameHeader } | Refused;

/** A frame's outside: what relays and verifiers need, and get without a key and without decoding records. */
export interface FrameEnvelope {
  readonly header: FrameHeader;
  /** Null where the body is in the clear. */
  readonly sealed: SealedBody | null;
  /** Everything that the signature covers. */
  readonly signedBytes: Uint8Array;
  /** Empty where nothing signed. */
  readonly signature: Uint8Array;
}

export type DecodedEnvelope = { readonly ok: true; readonly envelope: FrameEnvelope } | Refused;

/**
 * The bytes of `frame`, version 2; without protection the same ones every time. Text has to be well-formed Unicode.
 * @throws RangeError when the frame would exceed {@link frameBytesMax}.
 */
export function encodeFrame(frame: Frame, protection: FrameProtection = {}): Uint8Array {
  const { seal, sign } = protection;
  const writer = new ByteWriter();
  writer.byte(magic);
  writer.byte(version);
  writeHeader(writer, frame.header);
  if (seal === undefined) writer.byte(bodyKinds.clear);
  else writeSealStart(writer, seal);
  const bodyStart = writer.length;
  writeRecords(writer, frame);
  if (seal !== undefined) sealBody(writer, bodyStart, seal);
  const signature = sign?.(writer.view()) ?? new Uint8Array();
  assert(signature.length <= signatureBytesMax);
  writer.raw(signature);
  writer.byte(signature.length);
  if (writer.length > frameBytesMax) {
    throw new RangeError(
      `a frame of ${writer.length} bytes exceeds ${frameBytesMax}: split its records`,
    );
  }
  return writer.finish();
}

/**
 * Decodes any bytes: never throws unless `open` does, takes time and memory in proportion to their number. Byte values
 * are views. Without `open`, sealed bodies are refused as `key-unknown`.
 */
export function decodeFrame(bytes: Uint8Array, open: BodyOpener = nothingOpens): DecodedFrame {
  return guarded(bytes, (reader) => {
    const header = readHeader(reader);
    if (bytes[1] === 1) {
      const records = readRecords(reader, header);
      return { ok: true, frame: { header, records }, signature: readVersionOneSignature(reader) };
    }
    const { signedBytes, signature } = splitSignature(bytes, reader);
    const body = new ByteReader(signedBytes, reader.offset);
    const sealed = readBodyStart(body, header, signedBytes);
    if (sealed === null) return { ok: true, frame: frameOf(header, body), signature };
    const opened = open(sealed);
    if (!opened.ok) return problem(opened.code, body.offset, openingRules[opened.code]);
    return { ok: true, frame: frameOf(header, new ByteReader(opened.body)), signature };
  });
}

/** The header alone, at a small part of the cost; the body is not looked at. */
export function decodeFrameHeader(bytes: Uint8Array): DecodedHeader {
  return guarded(bytes, (reader) => ({ ok: true, header: readHeader(reader) }));
}

/** Header, signature and how the body is sealed; records are not looked at, except in version 1 to find its end. */
export function decodeFrameEnvelope(bytes: Uint8Array): DecodedEnvelope {
  return guarded(bytes, (reader) => {
    const header = readHeader(reader);
    if (bytes[1] === 1) {
      readRecords(reader, header);
      const signedBytes = viewOf(bytes, 0, reader.offset);
      const signature = readVersionOneSignature(reader);
      return { ok: true, envelope: { header, sealed: null, signedBytes, signature } };
    }
    const { signedBytes, signature } = splitSignature(bytes, reader);
    const sealed = readBodyStart(new ByteReader(signedBytes, reader.offset), header, signedBytes);
    return { ok: true, envelope: { header, sealed, signedBytes, signature } };
  });
}

/** SHA-256 of a whole encoded frame: what the next frame's header holds. */
export function frameHash(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

const openingRules = {
  'key-unknown': 'the body is sealed under a key that is not known here',
  'not-authentic': 'the body is not what was sealed',
} as const;

const nothingOpens: BodyOpener = () => ({ ok: false, code: 'key-unknown' });

function guarded<Success>(
  bytes: Uint8Array,
  decode: (reader: ByteReader) => Success,
): Success | Refused {
  if (bytes.length > frameBytesMax) {
    return problem('too-large', 0, `a frame has at most ${frameBytesMax} bytes`);
  }
  if (bytes[0] !== magic) return problem('malformed', 0, 'not a frame');
  if (!knownVersions.includes(bytes[1] ?? 0)) {
    return problem(
      'unknown-version',
      1,
      `frame version ${bytes[1] ?? 'missing'}, known: ${knownVersions.join(', ')}`,
    );
  }
  try {
    return decode(new ByteReader(bytes, 2));
  } catch (error) {
    if (error instanceof MalformedBytes) return problem('malformed', error.offset, error.message);
    throw error;
  }
}

function problem(code: FrameProblem['code'], offset: number, rule: string): Refused {
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

function writeRecords(writer: ByteWriter, frame: Frame): void {
  writer.varint(frame.records.length);
  const records = new RecordWriter(writer, frame.header.producedAtUs);
  for (const record of frame.records) records.write(record);
}

function readRecords(reader: ByteReader, header: FrameHeader): readonly FrameRecord[] {
  const recordCount = reader.varint();
  if (recordCount > reader.remaining) reader.fail('more records than bytes');
  const reading = new RecordReader(reader, header.producedAtUs);
  return Array.from({ length: recordCount }, () => reading.read());
}

function frameOf(header: FrameHeader, body: ByteReader): Frame {
  const records = readRecords(body, header);
  if (body.remaining > 0) body.fail('bytes after the records');
  return { header, records };
}

function writeSealStart(writer: ByteWriter, seal: BodySeal): void {
  assert(seal.keyId.length === contentKeyIdBytes);
  writer.byte(seal.keyEnvelope === null ? bodyKinds.sealed : bodyKinds.sealedWithKey);
  writer.raw(seal.keyId);
  if (seal.keyEnvelope === null) return;
  assert(seal.keyEnvelope.length <= keyEnvelopeBytesMax);
  writer.bytes(seal.keyEnvelope);
}

function sealBody(writer: ByteWriter, bodyStart: number, seal: BodySeal): void {
  const written = writer.view();
  const body = written.subarray(bodyStart);
  const encrypted = seal.encrypt(body, written.subarray(0, bodyStart));
  assert(encrypted.length === body.length + sealTagBytes);
  writer.truncate(bodyStart);
  writer.raw(encrypted);
}

/** Null where the body is in the clear; `body` is then at its first record count. */
function readBodyStart(
  body: ByteReader,
  header: FrameHeader,
  signedBytes: Uint8Array,
): SealedBody | null {
  const kind = body.byte();
  if (kind === bodyKinds.clear) return null;
  if (kind !== bodyKinds.sealed && kind !== bodyKinds.sealedWithKey) {
    return body.fail('unknown body kind');
  }
  const keyId = body.raw(contentKeyIdBytes);
  const keyEnvelope = kind === bodyKinds.sealedWithKey ? body.bytes() : null;
  if (keyEnvelope !== null && keyEnvelope.length > keyEnvelopeBytesMax) {
    body.fail('key envelope too long');
  }
  if (body.remaining < sealTagBytes) body.fail('ends early');
  const associatedData = viewOf(signedBytes, 0, body.offset);
  return { header, keyId, keyEnvelope, associatedData, encrypted: body.rest() };
}

function readVersionOneSignature(reader: ByteReader): Uint8Array {
  const signature = reader.bytes();
  if (signature.length > versionOneSignatureBytesMax) reader.fail('signature too long');
  if (reader.remaining > 0) reader.fail('bytes after the signature');
  return signature;
}

function splitSignature(
  bytes: Uint8Array,
  reader: ByteReader,
): { readonly signedBytes: Uint8Array; readonly signature: Uint8Array } {
  const signatureEnd = bytes.length - 1;
  const signatureStart = signatureEnd - (bytes[signatureEnd] ?? 0);
  if (signatureStart < reader.offset) reader.fail('ends early');
  return {
    signedBytes: viewOf(bytes, 0, signatureStart),
    signature: viewOf(bytes, signatureStart, signatureEnd),
  };
}

/** Never a Buffer, whatever `bytes` is. */
function viewOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start);
}
