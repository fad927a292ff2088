import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { ByteRing } from '../../../guest-agent/store/byte-ring.ts';
import {
  decodeOutcome,
  decodeRequest,
  encodeOutcome,
  encodeRequest,
  requestBytesMax,
} from '../../../guest-agent/store/request-codec.ts';
import { StoreProgress } from '../../../guest-agent/store/store-progress.ts';
import type { StoreRequest } from '../../../guest-agent/store/store-request.ts';
import { appendOf, plainAttributes, saveOf } from '../../support/store-fixture.ts';

describe('ByteRing', () => {
  test('gives back what was put in, in order, whatever the sizes and the interleaving', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.record({ push: fc.integer({ min: 0, max: 31_996 }) }),
            fc.constant({ pop: true as const }),
          ),
          { maxLength: 200 },
        ),
        (steps) => {
          const ring = new ByteRing(ByteRing.allocate(32_000));
          const consumer = new ByteRing(ring.buffer);
          const pushed: number[] = [];
          const popped: number[] = [];
          let refusedWhileEmpty = 0;
          for (const [id, step] of steps.entries()) {
            if ('pop' in step) {
              consumer.tryPop((record) => void popped.push(record.readUInt32LE(0)));
              continue;
            }
            const size = step.push + 4;
            const isPushed = ring.tryPush(size, (target) => {
              target.writeUInt32LE(id, 0);
              return size;
            });
            if (isPushed) pushed.push(id);
            else if (consumer.isEmpty) refusedWhileEmpty += 1;
          }
          while (consumer.tryPop((record) => void popped.push(record.readUInt32LE(0))));
          expect(popped).toEqual(pushed);
          expect(refusedWhileEmpty).toBe(0);
        },
      ),
    );
  });

  test('says no when there is no room and takes the record once there is', () => {
    const ring = new ByteRing(ByteRing.allocate(100));
    let count = 0;
    while (ring.tryPush(30_000, () => 30_000)) count += 1;
    expect(count).toBe(2);
    ring.tryPop(() => {});
    expect(ring.tryPush(30_000, () => 30_000)).toBe(true);
  });
});

describe('request codec', () => {
  const location = { area: 'encrypted', path: 'ünï/x' } as const;
  const requests: readonly StoreRequest[] = [
    saveOf('a/b', 'x,1\n', { filePath: null, replaced: 9, holdsNewName: true, publishes: false }),
    saveOf('a', Buffer.from([0, 255]), { area: 'encrypted', token: null, savedAtUs: 1.7e15 }),
    appendOf('log', '1\n2', { resentBytes: 1, writtenBytes: null }),
    { kind: 'publish', token: 2n ** 64n - 1n, handle: 3 },
    {
      kind: 'rename',
      token: null,
      file: 5,
      from: location,
      to: { area: 'encrypted', path: 'y' },
      replaced: null,
      saves: true,
      savedAtUs: 4,
    },
    { kind: 'put-file', file: 6, location, attributes: plainAttributes, truncatedToBytes: 0 },
    { kind: 'put-directory', file: 7, location, attributes: plainAttributes },
    { kind: 'remove', token: 1n, file: 8, location },
  ];

  test.each(requests)('a $kind request survives the ring', (request) => {
    const target = Buffer.alloc(requestBytesMax(request));
    const length = encodeRequest(request, target);
    expect(decodeRequest(target.subarray(0, length))).toEqual(request);
  });

  test('an outcome survives the ring', () => {
    const outcome = {
      kind: 'append',
      file: 2 ** 40,
      handle: 3,
      result: -22,
      sizeBytes: 5,
    } as const;
    const target = Buffer.alloc(32);
    encodeOutcome(outcome, target);
    expect(decodeOutcome(target)).toEqual(outcome);
  });
});

describe('StoreProgress', () => {
  test('the watermark stays below the oldest held save and is the last one while the store is busy', () => {
    const progress = new StoreProgress(new SharedArrayBuffer(64));
    progress.reset();
    const frontiers = { encrypted: 0, unencrypted: 4 };
    expect(progress.watermarkUs(1_000_000)).toBe(0);
    progress.endBatch(frontiers, undefined, true);
    expect(progress.frontier('unencrypted')).toBe(4);
    expect(progress.watermarkUs(1_000_000)).toBe(995_000);
    progress.endBatch(frontiers, 996_000, true);
    expect(progress.watermarkUs(2_000_000)).toBe(995_999);
    expect(progress.beginBatch()).toBe(995_999);
    expect(progress.watermarkUs(3_000_000)).toBe(995_999);
  });
});
