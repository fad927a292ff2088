import { openEnvelope } from '../../common/sealing/cms-envelope.ts';
import { contentKeyFromBytes, openBody } from '../../common/sealing/content-key.ts';
import type { Database } from '../../common/sqlite/database.ts';
import { decodeFrame, type BodyOpener } from '../../common/wire/frame-codec.ts';
import type { Value } from '../../common/wire/value.ts';
import { readReaderKeys } from '../../primary-site/sealing/reader-keys.ts';

/** A frame in the database of a primary site. */
export interface StoredFrame {
  readonly vm: string;
  readonly kind: string;
  /** Of its epoch. */
  readonly number: number;
  readonly bytes: Uint8Array;
}

/** All of them, by VM and then in the order of their places. */
export function framesOf(database: Database): readonly StoredFrame[] {
  return database
    .prepare<[], StoredFrame>(
      'SELECT vm, kind, number, bytes FROM frames JOIN epochs USING (epoch_id) ORDER BY vm, number, seq',
    )
    .all();
}

/** By the envelopes that came with the frames, opened anew. */
export function openerOf(database: Database, keysDirectory: string): BodyOpener {
  const readerKeys = readReaderKeys(keysDirectory);
  const envelopes = database
    .prepare<[], Uint8Array>('SELECT envelope FROM content_keys')
    .pluck()
    .all();
  const contentKeys = envelopes.flatMap((envelope) => {
    const opened = openEnvelope(envelope, readerKeys);
    return (opened.ok ? contentKeyFromBytes(opened.content) : undefined) ?? [];
  });
  return (body) => {
    const key = contentKeys.find(({ keyId }) => Buffer.compare(keyId, body.keyId) === 0);
    return key === undefined ? { ok: false, code: 'key-unknown' } : openBody(key, body);
  };
}

/** Values of the raw deliveries in a frame. */
export function valuesOf(bytes: Uint8Array, open: BodyOpener | undefined): Value[] {
  const decoded = open === undefined ? decodeFrame(bytes) : decodeFrame(bytes, open);
  if (!decoded.ok) throw new Error('a frame that was stored can be decoded');
  return decoded.frame.records.flatMap((record) =>
    record.kind === 'delivery' && record.delivery.kind === 'raw'
      ? record.delivery.measurements.map(({ value }) => value)
      : [],
  );
}
