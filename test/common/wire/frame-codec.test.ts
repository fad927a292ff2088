import { randomBytes } from 'node:crypto';

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { newContentKey, openBody, sealBody } from '../../../common/sealing/content-key.ts';
import { infraDataPoint, kpiDataPoint } from '../../../common/wire/data-point.ts';
import type { Delivery, Measurement } from '../../../common/wire/delivery.ts';
import {
  decodeFrame,
  decodeFrameEnvelope,
  decodeFrameHeader,
  encodeFrame,
  frameBytesMax,
  type BodyOpener,
  type FrameProtection,
} from '../../../common/wire/frame-codec.ts';
import type { Epoch, Frame, FrameRecord } from '../../../common/wire/frame.ts';
import type { Value } from '../../../common/wire/value.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import {
  chainedFrames,
  dataStream,
  rowRecord,
  sampleEpoch,
  sampleStartUs,
} from '../../support/sample-frames.ts';

const unicodeText = fc.string({ unit: 'binary' });
const timeUs = fc.integer({ min: 0, max: 2 ** 52 });
const value: fc.Arbitrary<Value> = fc.oneof(
  fc.constant(null),
  fc.double(),
  fc.maxSafeInteger(),
  fc.integer({ min: -1_000_000, max: 1_000_000 }).map((number) => number / 1_000),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  unicodeText,
  fc.uint8Array(),
);
const dataPoint = fc.oneof(
  fc
    .tuple(unicodeText, unicodeText)
    .map(([file, column]) => kpiDataPoint(`f${file}`, `c${column}`)),
  fc.constant(infraDataPoint('cpu', 'usage_ratio')),
);
const measurement: fc.Arbitrary<Measurement> = fc.record({
  dataPoint,
  timeUs: fc.oneof(timeUs, fc.constant(sampleStartUs)),
  uncertaintyUs: fc.nat(),
  value,
  held: fc.boolean(),
});
const epoch: fc.Arbitrary<Epoch> = fc.record({
  number: fc.maxSafeNat(),
  nonce: fc
    .uint8Array({ minLength: 8, maxLength: 8 })
    .map((bytes) => Buffer.from(bytes).toString('hex')),
});
const orNull = <Item>(item: fc.Arbitrary<Item>) => fc.option(item, { nil: null });
const deliveryStart = {
  specifierId: fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/),
  descriptorRevision: fc.nat(),
  window: orNull(
    fc.tuple(fc.nat(), fc.nat()).map(([startMs, length]) => ({ startMs, endMs: startMs + length })),
  ),
  revision: fc.nat(),
  predicateState: orNull(fc.constantFrom('initial', 'entering', 'inside', 'leaving' as const)),
};
const delivery: fc.Arbitrary<Delivery> = fc.oneof(
  fc.record({
    kind: fc.constant('raw' as const),
    ...deliveryStart,
    measurements: fc.array(measurement),
  }),
  fc.record(
    {
      kind: fc.constant('processed' as const),
      ...deliveryStart,
      dataPoint,
      format: fc.constantFrom('min', 'max', 'mean', 'median' as const),
      value: orNull(fc.double()),
      timeUs,
      count: fc.nat(),
      skippedCount: fc.nat(),
      heldCount: fc.nat(),
      relativeErrorMax: fc.double(),
    },
    {
      requiredKeys: [
        'kind',
        'specifierId',
        'descriptorRevision',
        'window',
        'revision',
        'predicateState',
        'dataPoint',
        'format',
        'value',
        'timeUs',
        'count',
        'skippedCount',
      ],
    },
  ),
);
const record: fc.Arbitrary<FrameRecord> = fc.oneof(
  delivery.map((item) => ({ kind: 'delivery' as const, delivery: item })),
  fc.record({
    kind: fc.constant('epoch-opened' as const),
    predecessor: orNull(fc.record({ epoch, lastSeq: orNull(fc.nat()) })),
    generation: orNull(unicodeText),
    reason: fc.constantFrom(
      'created',
      'generation-changed',
      'moved',
      'store-lost',
      'signing-changed' as const,
    ),
  }),
  fc.record({ kind: fc.constant('epoch-closed' as const), lastSeq: fc.maxSafeNat() }),
  fc.record({
    kind: fc.constant('lost' as const),
    where: fc.constantFrom('guest-store', 'stream-log' as const),
    count: fc.nat(),
    fromSeq: orNull(fc.nat()),
    throughSeq: orNull(fc.nat()),
    reason: unicodeText,
  }),
  fc.record({
    kind: fc.constant('status' as const),
    vmState: fc.constantFrom('running', 'suspended', 'silent', 'dead', 'unknown' as const),
    head: orNull(fc.record({ epoch, seq: fc.nat() })),
    watermarkUs: orNull(timeUs),
  }),
);
const frame: fc.Arbitrary<Frame> = fc.record({
  header: fc.record({
    stream: fc.record({
      vm: fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/).map((text) => vmIdSchema.parse(text)),
      kind: fc.constantFrom('data', 'status' as const),
    }),
    epoch,
    seq: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    previousHash: fc.uint8Array({ minLength: 32, maxLength: 32 }),
    producedAtUs: timeUs,
  }),
  records: fc.array(record, { maxLength: 6 }),
});

const key = newContentKey(randomBytes);
const open: BodyOpener = (body) => openBody(key, body);

function sealed(original: Frame, keyEnvelope: Uint8Array | null): FrameProtection {
  const encrypt = (body: Uint8Array, associatedData: Uint8Array): Uint8Array =>
    sealBody(key, original.header, body, associatedData);
  return { seal: { keyId: key.keyId, keyEnvelope, encrypt }, sign: () => Buffer.alloc(64, 7) };
}

describe('frame codec', () => {
  test('gives back every sealed frame exactly, with its key and only with it', () => {
    fc.assert(
      fc.property(frame, fc.option(fc.uint8Array(), { nil: null }), (original, keyEnvelope) => {
        const bytes = encodeFrame(original, sealed(original, keyEnvelope));
        const signature = new Uint8Array(Buffer.alloc(64, 7));
        expect(decodeFrame(bytes, open)).toEqual({ ok: true, frame: original, signature });
        expect(decodeFrame(bytes)).toMatchObject({ problem: { code: 'key-unknown' } });
        const other = newContentKey(randomBytes);
        expect(decodeFrame(bytes, (body) => openBody(other, body))).toMatchObject({
          problem: { code: 'not-authentic' },
        });
        expect(decodeFrameEnvelope(bytes)).toMatchObject({
          ok: true,
          envelope: {
            header: original.header,
            sealed: { keyId: key.keyId, keyEnvelope },
            signedBytes: Uint8Array.from(bytes.subarray(0, -65)),
            signature,
          },
        });
      }),
    );
  });

  test('a sealed frame that was altered anywhere before its signature does not open', () => {
    fc.assert(
      fc.property(frame, fc.nat(), fc.integer({ min: 1, max: 255 }), (original, at, change) => {
        const bytes = encodeFrame(original, sealed(original, null));
        const position = at % (bytes.length - 65);
        const altered = Uint8Array.from(bytes);
        altered[position] = (altered[position] ?? 0) ^ change;
        expect(decodeFrame(altered, open).ok).toBe(false);
      }),
      { numRuns: 1_000 },
    );
  });

  test('never throws on arbitrary bytes of version 2, sealed or not', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (noise) => {
        const bytes = Buffer.concat([Buffer.from([0x49, 2, 0, 1, 0x61]), noise]);
        expect(decodeFrame(bytes, open)).toHaveProperty('ok');
        expect(decodeFrameEnvelope(bytes)).toHaveProperty('ok');
      }),
      { numRuns: 2_000 },
    );
  });

  test('gives back every frame exactly: 64-bit integers, floats, text, bytes and null', () => {
    fc.assert(
      fc.property(frame, (original) => {
        const decoded = decodeFrame(encodeFrame(original));
        expect(decoded).toEqual({ ok: true, frame: original, signature: new Uint8Array() });
      }),
    );
  });

  test('encodes the same frame to the same bytes', () => {
    fc.assert(
      fc.property(frame, (original) => {
        const decoded = decodeFrame(encodeFrame(original));
        if (!decoded.ok) throw new Error(decoded.problem.rule);
        expect(encodeFrame(decoded.frame)).toEqual(encodeFrame(original));
      }),
    );
  });

  test('reads a header without the body', () => {
    fc.assert(
      fc.property(frame, (original) => {
        expect(decodeFrameHeader(encodeFrame(original))).toEqual({
          ok: true,
          header: original.header,
        });
      }),
    );
  });

  test('keeps minus zero, NaN and the extreme doubles apart', () => {
    const values = [0, -0, NaN, Infinity, -Infinity, 5e-324, 1.7976931348623157e308, 0.1, -12.34];
    const header = chainedFrames(dataStream('vm'), 1)[0]!.header;
    const decoded = decodeFrame(encodeFrame({ header, records: [rowRecord('f', 1, values)] }));
    expect(decoded).toMatchObject({
      ok: true,
      frame: { records: [rowRecord('f', 1, values)] },
    });
  });

  test('never throws on arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (noise) => {
        const bytes = Buffer.concat([Buffer.from([0x49, 1]), noise]);
        expect(decodeFrame(bytes)).toHaveProperty('ok');
        expect(decodeFrame(noise)).toHaveProperty('ok');
      }),
      { numRuns: 2_000 },
    );
  });

  test('never throws on damaged frames, and never takes a shortened one', () => {
    fc.assert(
      fc.property(frame, fc.nat(), fc.integer({ min: 0, max: 255 }), (original, position, byte) => {
        const bytes = encodeFrame(original);
        const damaged = Uint8Array.from(bytes);
        damaged[position % bytes.length] = byte;
        expect(decodeFrame(damaged)).toHaveProperty('ok');
        expect(decodeFrame(bytes.subarray(0, position % bytes.length)).ok).toBe(false);
      }),
      { numRuns: 500 },
    );
  });

  test('says why bytes are no frame', () => {
    expect(decodeFrame(Buffer.from([0x49, 9]))).toMatchObject({
      problem: { code: 'unknown-version' },
    });
    expect(decodeFrame(Buffer.from('hello'))).toMatchObject({
      problem: { code: 'malformed', offset: 0 },
    });
    const [first] = chainedFrames(dataStream('vm'), 1);
    const trailing = Buffer.concat([first!.bytes, Buffer.from([0])]);
    expect(decodeFrame(trailing)).toMatchObject({ problem: { rule: 'bytes after the records' } });
    expect(decodeFrame(new Uint8Array(frameBytesMax + 1))).toMatchObject({
      problem: { code: 'too-large' },
    });
  });

  test('at most 12 bytes a measurement at 100 ten-column measurements a frame', () => {
    const header = {
      stream: dataStream('vm'),
      epoch: sampleEpoch,
      seq: 1_000_000,
      previousHash: new Uint8Array(32),
      producedAtUs: sampleStartUs,
    };
    // Doubles with all their digits are the worst case for numbers.
    const records = Array.from({ length: 10 }, (_, row) =>
      rowRecord(
        'app/requests.csv',
        sampleStartUs + row * 10_007,
        Array.from({ length: 10 }, (__, column) => Math.sin(row * 10 + column)),
      ),
    );
    expect(encodeFrame({ header, records }).length / 100).toBeLessThanOrEqual(12);
  });
});
