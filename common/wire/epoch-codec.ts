import assert from 'node:assert';

import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import type { Epoch } from './frame.ts';

const nonceBytes = 8;

/** Number and nonce, 9 bytes and more. */
export function writeEpoch(writer: ByteWriter, epoch: Epoch): void {
  const nonce = Buffer.from(epoch.nonce, 'hex');
  assert(nonce.length === nonceBytes, 'an epoch nonce has 16 hex digits');
  writer.varint(epoch.number);
  writer.raw(nonce);
}

/** @throws MalformedBytes */
export function readEpoch(reader: ByteReader): Epoch {
  const number = reader.varint();
  const nonce = reader.raw(nonceBytes);
  return { number, nonce: Buffer.from(nonce.buffer, nonce.byteOffset, nonceBytes).toString('hex') };
}
