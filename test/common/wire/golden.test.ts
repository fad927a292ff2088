import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import {
  decodeDownstream,
  decodeUpstream,
  encodeControl,
} from '../../../common/wire/control-message.ts';
import { decodeFrameBatch, encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import { decodeFrame, encodeFrame } from '../../../common/wire/frame-codec.ts';
import { goldenFrame } from '../../support/golden-frame.ts';

const directory = join(packageRoot(), 'test', 'golden', 'wire');

function golden(name: string): string {
  return readFileSync(join(directory, name), 'utf8').trim();
}

function goldenJson<Schema extends z.ZodType>(name: string, schema: Schema): z.output<Schema> {
  return schema.parse(JSON.parse(golden(name)));
}

const invalidFrames = goldenJson(
  'frame-v1-invalid.json',
  z.array(
    z.strictObject({ name: z.string(), hex: z.string(), code: z.string(), rule: z.string() }),
  ),
);
const direction = z.enum(['up', 'down']);
const validMessages = goldenJson(
  'control-v1-valid.json',
  z.array(z.strictObject({ direction, message: z.looseObject({ kind: z.string() }) })),
);
const invalidMessages = goldenJson(
  'control-v1-invalid.json',
  z.array(z.strictObject({ name: z.string(), direction, text: z.string(), code: z.string() })),
);
const decode = { up: decodeUpstream, down: decodeDownstream };

describe('wire format, version 1', () => {
  test('a frame has the bytes that were published', () => {
    const bytes = Buffer.from(golden('frame-v1.hex'), 'hex');
    expect(Buffer.from(encodeFrame(goldenFrame)).toString('hex')).toBe(bytes.toString('hex'));
    expect(decodeFrame(Uint8Array.from(bytes))).toEqual({
      ok: true,
      frame: goldenFrame,
      signature: new Uint8Array(),
    });
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
    expect(decodeFrame(Buffer.from(hex, 'hex'))).toMatchObject({
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

  test.each(invalidMessages)('refuses a control message: $name', (fixture) => {
    const decoded = decode[fixture.direction](Buffer.from(fixture.text));
    expect(decoded).toMatchObject({ ok: false, code: fixture.code });
  });
});
