import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import { contentKeyFromBytes, openBody, sealBody } from '../../../common/sealing/content-key.ts';
import {
  decodeDownstream,
  decodeUpstream,
  downstreamMessageSchema,
  encodeControl,
  upstreamMessageSchema,
} from '../../../common/wire/control-message.ts';
import { decodeFrameBatch, encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import {
  decodeFrame,
  decodeFrameEnvelope,
  decodeFrameHeader,
  encodeFrame,
  type BodyOpener,
} from '../../../common/wire/frame-codec.ts';
import { goldenFrame } from '../../support/golden-frame.ts';

const directory = join(packageRoot(), 'test', 'golden', 'wire');

function golden(name: string): string {
  return readFileSync(join(directory, name), 'utf8').trim();
}

function goldenJson<Schema extends z.ZodType>(name: string, schema: Schema): z.output<Schema> {
  return schema.parse(JSON.parse(golden(name)));
}

const invalidFrameSchema = z.array(
  z.strictObject({ name: z.string(), hex: z.string(), code: z.string(), rule: z.string() }),
);
const invalidFrames = [
  ...goldenJson('frame-v1-invalid.json', invalidFrameSchema),
  ...goldenJson('frame-v2-invalid.json', invalidFrameSchema),
];
const key = contentKeyFromBytes(Uint8Array.from({ length: 40 }, (_, index) => index));
if (key === undefined) throw new Error('the golden key is one');
const open: BodyOpener = (body) => openBody(key, body);
const goldenSignature = Uint8Array.from({ length: 64 }, (_, index) => 255 - index);
const sealWith = (keyEnvelope: Uint8Array | null) => ({
  keyId: key.keyId,
  keyEnvelope,
  encrypt: (body: Uint8Array, associatedData: Uint8Array) =>
    sealBody(key, goldenFrame.header, body, associatedData),
});
const direction = z.enum(['up', 'down']);
const validMessages = goldenJson(
  'control-v1-valid.json',
  z.array(z.strictObject({ direction, message: z.looseObject({ kind: z.string() }) })),
);
const invalidMessages = goldenJson(
  'control-v1-invalid.json',
  z.array(z.strictObject({ name: z.string(), direction, text: z.string(), code: z.string() })),
);
const messageSchemas = { up: upstreamMessageSchema, down: downstreamMessageSchema };
const decode = { up: decodeUpstream, down: decodeDownstream };

describe('wire format', () => {
  test('a frame of version 1 is still read', () => {
    const bytes = Uint8Array.from(Buffer.from(golden('frame-v1.hex'), 'hex'));
    const signature = new Uint8Array();
    expect(decodeFrame(bytes)).toEqual({ ok: true, frame: goldenFrame, signature });
    expect(decodeFrameEnvelope(bytes)).toMatchObject({
      ok: true,
      envelope: { header: goldenFrame.header, sealed: null, signature },
    });
  });

  test.each([
    { name: 'frame-v2.hex', protection: {}, signature: new Uint8Array() },
    {
      name: 'frame-v2-sealed-signed.hex',
      protection: { seal: sealWith(null), sign: () => goldenSignature },
      signature: goldenSignature,
    },
    {
      name: 'frame-v2-sealed-with-key.hex',
      protection: { seal: sealWith(Uint8Array.of(0x30, 1, 2)) },
      signature: new Uint8Array(),
    },
  ])('a frame of version 2 has the bytes that were published: $name', (fixture) => {
    const bytes = Uint8Array.from(Buffer.from(golden(fixture.name), 'hex'));
    const encoded = encodeFrame(goldenFrame, fixture.protection);
    expect(Buffer.from(encoded).toString('hex')).toBe(Buffer.from(bytes).toString('hex'));
    const { signature } = fixture;
    expect(decodeFrame(bytes, open)).toEqual({ ok: true, frame: goldenFrame, signature });
    expect(decodeFrameHeader(bytes)).toEqual({ ok: true, header: goldenFrame.header });
  });

  test('a frame batch has the bytes that were published', () => {
    const bytes = Buffer.from(golden('frame-batch-v1.hex'), 'hex');
    const frames = [Uint8Array.of(1, 2, 3), new Uint8Array(), Uint8Array.of(255)];
    expect(Buffer.from(encodeFrameBatch(frames)).toString('hex')).toBe(bytes.toString('hex'));
    expect(decodeFrameBatch(Uint8Array.from(bytes))).toEqual({ ok: true, frames });
    expect(decodeFrameBatch(bytes.subarray(0, -1)).ok).toBe(false);
    expect(decodeFrameBatch(Uint8Array.of(0x42, 2)).ok).toBe(false);
  });

  test.each(invalidFrames)('refuses a frame: $name', ({ hex, code, rule }) => {
    expect(decodeFrame(Buffer.from(hex, 'hex'), open)).toMatchObject({
      ok: false,
      problem: { code, rule },
    });
  });

  test.each(validMessages)('takes the control message $message.kind', (fixture) => {
    const bytes = Buffer.from(JSON.stringify(fixture.message));
    const decoded = decode[fixture.direction](bytes);
    expect(decoded).toEqual({ ok: true, message: fixture.message });
    const encoded = decoded.ok ? encodeControl(decoded.message) : bytes;
    expect(JSON.parse(Buffer.from(encoded).toString('utf8'))).toEqual(fixture.message);
  });

  test('golden fixtures cover every kind of control message', () => {
    for (const [way, { options }] of Object.entries(messageSchemas)) {
      const kinds = options.map(({ shape }) => shape.kind.value);
      const covered = validMessages.filter(({ direction: each }) => each === way);
      expect(new Set(covered.map(({ message }) => message.kind))).toEqual(new Set(kinds));
    }
  });

  test.each(invalidMessages)('refuses a control message: $name', (fixture) => {
    const decoded = decode[fixture.direction](Buffer.from(fixture.text));
    expect(decoded).toMatchObject({ ok: false, code: fixture.code });
  });
});
