import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  encodeFrame,
  FrameDecoder,
  type DecodedFrame,
  type FrameDamage,
} from '../../../common/channel/frame-codec.ts';
import { payloadBytesMax } from '../../../common/channel/protocol.ts';

const magic = Buffer.from([0xf5, 0x49, 0x53, 0x42]);

function decode(chunks: readonly Uint8Array[]): {
  frames: DecodedFrame[];
  damages: FrameDamage[];
  decoder: FrameDecoder;
} {
  const frames: DecodedFrame[] = [];
  const damages: FrameDamage[] = [];
  const decoder = new FrameDecoder({
    frame: (frame) => {
      frames.push(frame);
    },
    damage: (damage) => {
      damages.push(damage);
    },
  });
  for (const chunk of chunks) decoder.push(chunk);
  return { frames, damages, decoder };
}

/** Payloads in which the magic and its beginnings are frequent. */
const payloads = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.constantFrom(magic, magic.subarray(0, 3), magic.subarray(0, 2), Buffer.from([0xf5])),
    ),
    { maxLength: 8 },
  )
  .map((pieces) => Buffer.concat(pieces));
const frames = fc.array(
  fc.record({ session: fc.integer({ min: 0, max: 0xffff_ffff }), payload: payloads }),
  { maxLength: 6 },
);

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const offsets = cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b);
  return [0, ...offsets].map((from, index) => bytes.subarray(from, offsets[index] ?? bytes.length));
}

describe('FrameDecoder', () => {
  test('gives back what was encoded, whatever the pieces it arrives in', () => {
    fc.assert(
      fc.property(frames, fc.array(fc.nat(), { maxLength: 30 }), (sent, cuts) => {
        const bytes = Buffer.concat(sent.map((f) => encodeFrame(f.session, f.payload)));
        const { frames: got, damages, decoder } = decode(split(bytes, cuts));
        expect(got).toEqual(sent);
        expect(damages).toEqual([]);
        expect(decoder.pendingBytes).toBe(0);
      }),
    );
  });

  test('the magic is nowhere but at the start of a frame', () => {
    fc.assert(
      fc.property(frames, (sent) => {
        const bytes = Buffer.concat(sent.map((f) => encodeFrame(f.session, f.payload)));
        let count = 0;
        for (let at = bytes.indexOf(magic); at !== -1; at = bytes.indexOf(magic, at + 1)) {
          count += 1;
        }
        expect(count).toBe(sent.length);
      }),
    );
  });

  test('finds its place again after garbage and after the half frame of a dead predecessor', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 100 }),
        payloads,
        fc.nat(),
        frames,
        fc.array(fc.nat(), { maxLength: 10 }),
        (garbage, halfPayload, cut, sent, cuts) => {
          const whole = encodeFrame(7, halfPayload);
          const half = whole.subarray(0, cut % whole.length);
          const valid = sent.map((f) => encodeFrame(f.session, f.payload));
          const bytes = Buffer.concat([garbage, half, ...valid]);
          expect(decode(split(bytes, cuts)).frames).toEqual(sent);
        },
      ),
    );
  });

  test('a half frame that announces megabytes does not delay the frame after it', () => {
    const half = encodeFrame(1, Buffer.alloc(1_000_000)).subarray(0, 50);
    const { frames: got, damages } = decode([half, encodeFrame(2, Buffer.from('x'))]);
    expect(got).toEqual([{ session: 2, payload: Buffer.from('x') }]);
    expect(damages).toEqual([{ cause: 'cut', byteCount: 50 }]);
  });

  test('loses only the frames that corruption touches', () => {
    fc.assert(
      fc.property(
        fc.array(payloads, { minLength: 1, maxLength: 6 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (sent, position, flip) => {
          const encoded = sent.map((payload, index) => encodeFrame(index, payload));
          const bytes = Buffer.concat(encoded);
          const at = position % bytes.length;
          bytes[at] = bytes[at]! ^ flip;
          let start = 0;
          const hit = encoded.findIndex((frame) => {
            start += frame.length;
            return at < start;
          });
          // A sentinel ends what a corrupted length may wait for.
          const sentinel = encodeFrame(99, Buffer.from('end'));
          const got = decode([bytes, sentinel]).frames.map(({ session }) => session);
          const expected = [...sent.keys()].filter((index) => index !== hit);
          expect(got).toEqual([...expected, 99]);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('survives any bytes without unbounded memory', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.constant(magic)), {
          maxLength: 40,
        }),
        (chunks) => {
          const { decoder } = decode(chunks);
          const total = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
          expect(decoder.pendingBytes).toBeLessThanOrEqual(total);
        },
      ),
    );
    const endless = decode(Array.from({ length: 64 }, () => Buffer.alloc(1_048_576, 1)));
    expect(endless.decoder.pendingBytes).toBeLessThan(magic.length);
  });

  test('a frame that announces more than the bound is garbage', () => {
    const frame = encodeFrame(1, Buffer.from('x'));
    // The length's five bytes of seven bits.
    frame.fill(0x0f, 9, 10);
    const { frames: got, damages } = decode([frame, encodeFrame(2, Buffer.from('y'))]);
    expect(got).toEqual([{ session: 2, payload: Buffer.from('y') }]);
    expect(damages[0]?.cause).toBe('length');
    expect(() => encodeFrame(1, Buffer.alloc(payloadBytesMax + 1))).toThrow(RangeError);
  });

  test('a frame of the largest size that arrives in small pieces is decoded in linear time', () => {
    const payload = Buffer.alloc(payloadBytesMax, 0xf5);
    const bytes = encodeFrame(3, payload);
    const chunks = Array.from({ length: Math.ceil(bytes.length / 4_096) }, (_, index) =>
      bytes.subarray(index * 4_096, (index + 1) * 4_096),
    );
    const { frames: got } = decode(chunks);
    expect(got[0]?.payload.equals(payload)).toBe(true);
  });
});
