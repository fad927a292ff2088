import { ByteReader, MalformedBytes } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';

/*
 * What one message of the transport carries: frames as they are stored, whole and unchanged, of any streams.
 *
 *   magic 'B', version 1, then for each frame its length (varint) and its bytes, up to the end
 */
const magic = 0x42;
const version = 1;

export type DecodedBatch =
  | { readonly ok: true; readonly frames: readonly Uint8Array[] }
  | { readonly ok: false; readonly rule: string; readonly offset: number };

/** Encoded frames as one message. The caller bounds their number and size. */
export function encodeFrameBatch(frames: readonly Uint8Array[]): Uint8Array {
  const writer = new ByteWriter();
  writer.byte(magic);
  writer.byte(version);
  for (const frame of frames) writer.bytes(frame);
  return writer.finish();
}

/** Views of the frames in `bytes`; never throws. */
export function decodeFrameBatch(bytes: Uint8Array): DecodedBatch {
  if (bytes[0] !== magic || bytes[1] !== version) {
    return { ok: false, rule: 'not a frame batch of version 1', offset: 0 };
  }
  const reader = new ByteReader(bytes, 2);
  const frames: Uint8Array[] = [];
  try {
    while (reader.remaining > 0) frames.push(reader.bytes());
  } catch (error) {
    if (error instanceof MalformedBytes) {
      return { ok: false, rule: error.message, offset: error.offset };
    }
    throw error;
  }
  return { ok: true, frames };
}
