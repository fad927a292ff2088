import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { Encoder } from 'cbor-x';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { isPlainCbor } from '../../../common/channel/cbor-shape.ts';
import { encodeFrame, FrameDecoder } from '../../../common/channel/frame-codec.ts';
import type { GuestRow } from '../../../common/channel/guest-row.ts';
import { MessageCodec } from '../../../common/channel/message-codec.ts';
import { messageKinds, type ChannelMessage } from '../../../common/channel/message.ts';
import { protocolVersion, protocolVersionOldest } from '../../../common/channel/protocol.ts';
import { packageRoot } from '../../../common/runtime/package-root.ts';
import { goldenMessages } from '../../support/golden-channel-messages.ts';

const codec = new MessageCodec();
const cbor = new Encoder({ useRecords: false, tagUint8Array: false });

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const values = fc.oneof(
  fc.double({ noNaN: true }).filter((value) => !Object.is(value, -0)),
  fc.integer(),
  fc.maxSafeInteger(),
  int64.filter((value) => !Number.isSafeInteger(Number(value))),
  fc.string(),
  fc.uint8Array(),
  fc.constant(null),
);
const shapes = fc.record({
  table: fc.string({ minLength: 1 }),
  columns: fc.array(fc.string(), { maxLength: 4 }),
});
const rowLists = fc
  .array(shapes, { minLength: 1, maxLength: 4 })
  .chain((available) =>
    fc.array(
      fc.constantFrom(...available).chain((shape) =>
        fc.record({
          shape: fc.constant(shape),
          values: fc.array(values, {
            minLength: shape.columns.length,
            maxLength: shape.columns.length,
          }),
          savedAtUs: fc.maxSafeInteger(),
        }),
      ),
      { maxLength: 12 },
    ),
  )
  .map((rows) =>
    rows.map((row, index): GuestRow => ({
      area: 'unencrypted',
      rowId: 2 * index + 1,
      savedAtUs: row.savedAtUs,
      ...row.shape,
      values: row.values,
    })),
  );

function rowsMessage(rows: readonly GuestRow[]): ChannelMessage {
  return {
    kind: 'rows',
    requestId: 1,
    area: 'unencrypted',
    generation: 'g',
    rows,
    lost: [],
    throughRowId: 1_000,
    hasMore: false,
  };
}

describe('MessageCodec', () => {
  test('64-bit integers and blobs and nulls round trip', () => {
    fc.assert(
      fc.property(rowLists, (rows) => {
        const message = rowsMessage(rows);
        expect(codec.decode(codec.encode(message))).toEqual({ outcome: 'message', message });
      }),
    );
  });

  test('columns are sent once per table and response', () => {
    const columns = ['a-rather-long-label', 'another-rather-long-label'];
    const row = { area: 'unencrypted', table: 'some/table', savedAtUs: 1, values: [1, 2] } as const;
    const bytes = (count: number): number =>
      codec.encode(
        // A fresh array each time: equal columns are found by content.
        rowsMessage(
          Array.from({ length: count }, (_, i) => ({
            ...row,
            columns: [...columns],
            rowId: i + 1,
          })),
        ),
      ).length;
    expect(bytes(101) - bytes(1)).toBeLessThan(100 * 10);
  });

  test.each([...goldenMessages.keys()])(
    'reads and writes the golden bytes of every version spoken: %s',
    (name) => {
      for (let version = protocolVersionOldest; version <= protocolVersion; version += 1) {
        const path = join(packageRoot(), `test/golden/channel/v${version}-${name}.hex`);
        expect(existsSync(path), `${path} is missing`).toBe(true);
        const golden = Buffer.from(readFileSync(path, 'utf8').replaceAll(/\s/g, ''), 'hex');
        const message = goldenMessages.get(name)!;
        expect(encodeFrame(0xc0ffee, codec.encode(message)).toString('hex')).toBe(
          golden.toString('hex'),
        );
        const decoded: unknown[] = [];
        new FrameDecoder({
          frame: ({ payload }) => {
            decoded.push(codec.decode(payload));
          },
          damage: (damage) => {
            decoded.push(damage);
          },
        }).push(golden);
        expect(decoded).toEqual([{ outcome: 'message', message }]);
      }
    },
  );

  test('golden fixtures cover every kind of message', () => {
    const covered = new Set([...goldenMessages.values()].map(({ kind }) => kind));
    expect(covered).toEqual(messageKinds);
  });

  test('unknown fields and kinds are ignored', () => {
    const newer = cbor.encode({ kind: 'ping', colour: 'green' });
    expect(codec.decode(newer)).toEqual({ outcome: 'message', message: { kind: 'ping' } });
    const unknown = cbor.encode({ kind: 'telepathy', strength: 3 });
    expect(codec.decode(unknown)).toEqual({ outcome: 'unknown', kind: 'telepathy' });
  });

  test.each<[string, object]>([
    ['a shape is missing', { shapes: [], rows: [[0, 1, 1]] }],
    [
      'row ids do not rise',
      {
        shapes: [['t', []]],
        rows: [
          [0, 2, 1],
          [0, 2, 1],
        ],
      },
    ],
    ['a row id is no integer', { shapes: [['t', []]], rows: [[0, 1.5, 1]] }],
    ['too few values', { shapes: [['t', ['a']]], rows: [[0, 1, 1]] }],
    ['a value is an array', { shapes: [['t', ['a']]], rows: [[0, 1, 1, [1]]] }],
    ['an integer beyond 64 bits', { shapes: [['t', ['a']]], rows: [[0, 1, 1, 2n ** 63n]] }],
    ['a row beyond throughRowId', { shapes: [['t', []]], rows: [[0, 1_001, 1]] }],
  ])('refuses a rows message in which %s', (_, block) => {
    const { rows: _rows, ...head } = rowsMessage([]) as Extract<ChannelMessage, { kind: 'rows' }>;
    expect(codec.decode(cbor.encode({ ...head, block })).outcome).toBe('malformed');
  });

  test('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(codec.decode(bytes).outcome).toMatch(/^(?:message|unknown|malformed)$/);
      }),
    );
    const valid = [...goldenMessages.values()].map((message) => codec.encode(message));
    fc.assert(
      fc.property(fc.constantFrom(...valid), fc.nat(), fc.nat(255), (payload, position, byte) => {
        const damaged = Uint8Array.from(payload);
        damaged[position % damaged.length] = byte;
        expect(codec.decode(damaged).outcome).toMatch(/^(?:message|unknown|malformed)$/);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('isPlainCbor', () => {
  test.each([
    ['an array of 2^32 - 1 items', '9affffffff'],
    ['a map of 2^64 - 1 entries', 'bbffffffffffffffff'],
    ['a text longer than the bytes left', '7a00ffffff61'],
    ['a tag', 'c101'],
    ['an indefinite length', '9fff'],
    ['nesting without end', '81'.repeat(1_000)],
    ['two items', '0101'],
    ['nothing', ''],
  ])('refuses %s', (_, hex) => {
    expect(isPlainCbor(Buffer.from(hex, 'hex'))).toBe(false);
  });

  test('accepts what the encoder makes', () => {
    fc.assert(
      fc.property(fc.array(values), (items) => {
        expect(isPlainCbor(cbor.encode({ items }))).toBe(true);
      }),
    );
  });
});
