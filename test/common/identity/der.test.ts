import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  DerError,
  derBits,
  derBoolean,
  derElement,
  derElements,
  derObjectIdentifier,
  derTag,
  derTimeMs,
  derUnsigned,
  type DerElement,
} from '../../../common/identity/der.ts';

function hex(text: string): Uint8Array {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

function encode(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content;
  const header = length < 128 ? [length] : [0x82, length >> 8, length & 255];
  if (length >= 128 && length < 256) header.splice(0, 3, 0x81, length);
  return Buffer.concat([Uint8Array.of(tag, ...header), content]);
}

function element(tag: number, content: Uint8Array) {
  return derElement(encode(tag, content), tag);
}

function idOf(bytes: string): string {
  return derObjectIdentifier(element(derTag.objectIdentifier, hex(bytes)));
}

function timeOf(tag: number, text: string): string {
  return new Date(derTimeMs(element(tag, Buffer.from(text)))).toISOString();
}

/** Any other error fails the test. */
function outcomeOf(bytes: Uint8Array): readonly DerElement[] | DerError {
  try {
    return derElements(bytes);
  } catch (error) {
    if (error instanceof DerError) return error;
    throw error;
  }
}

describe('derElements', () => {
  test('finds each element with its bytes', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(fc.constantFrom(...Object.values(derTag)), fc.uint8Array({ maxLength: 300 })),
          { maxLength: 5 },
        ),
        (parts) => {
          const bytes = parts.map(([tag, content]) => encode(tag, content));
          const found = derElements(Buffer.concat(bytes));
          expect(found.map(({ tag }) => tag)).toEqual(parts.map(([tag]) => tag));
          expect(found.map((each) => Buffer.from(each.content))).toEqual(
            parts.map(([, content]) => Buffer.from(content)),
          );
          expect(found.map((each) => Buffer.from(each.bytes))).toEqual(
            bytes.map((each) => Buffer.from(each)),
          );
        },
      ),
    );
  });

  test.each([
    ['an indefinite length', '30 80 00 00'],
    ['a length that is not the shortest', '04 81 01 00'],
    ['a length with a leading zero', `04 82 00 80 ${'00'.repeat(128)}`],
    ['a length of five bytes', '04 85 00 00 00 00 01 00'],
    ['a tag of several bytes', '1f 01 00'],
    ['content that ends early', '04 02 00'],
    ['a tag without a length', '04'],
  ])('refuses %s', (_what, bytes) => {
    expect(() => derElements(hex(bytes))).toThrow(DerError);
  });

  test('ends with elements or a DerError, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const found = outcomeOf(bytes);
        const length =
          found instanceof DerError
            ? bytes.length
            : found.reduce((sum, each) => sum + each.bytes.length, 0);
        expect(length).toBe(bytes.length);
      }),
    );
  });
});

describe('values', () => {
  test('integers that are not negative, without leading zeros', () => {
    expect(derUnsigned(element(derTag.integer, hex('00')))).toBe('0');
    expect(derUnsigned(element(derTag.integer, hex('00ff')))).toBe('ff');
    expect(() => derUnsigned(element(derTag.integer, hex('80')))).toThrow(DerError);
    expect(() => derUnsigned(element(derTag.integer, hex('')))).toThrow(DerError);
    expect(() => derUnsigned(element(derTag.boolean, hex('01')))).toThrow(DerError);
  });

  test('object identifiers', () => {
    expect(idOf('55 1d 11')).toBe('2.5.29.17');
    expect(idOf('2a 86 48 ce 3d 04 03 02')).toBe('1.2.840.10045.4.3.2');
    expect(idOf('88 37 03')).toBe('2.999.3');
    for (const bytes of ['', '55 9d', `55 ${'ff'.repeat(8)} 7f`, '55'.repeat(65)]) {
      expect(() => idOf(bytes)).toThrow(DerError);
    }
  });

  test('times of two and four digits', () => {
    expect(timeOf(derTag.utcTime, '491231235959Z')).toBe('2049-12-31T23:59:59.000Z');
    expect(timeOf(derTag.utcTime, '500101000000Z')).toBe('1950-01-01T00:00:00.000Z');
    expect(timeOf(derTag.generalizedTime, '20500101000000Z')).toBe('2050-01-01T00:00:00.000Z');
    for (const text of ['4912312359Z', '491231235959+0100', '499931235959Z', '']) {
      expect(() => timeOf(derTag.utcTime, text)).toThrow(DerError);
    }
    expect(() => timeOf(derTag.octetString, '491231235959Z')).toThrow(DerError);
  });

  test('booleans, and bit strings of whole bytes', () => {
    expect(derBoolean(element(derTag.boolean, hex('ff')))).toBe(true);
    expect(derBoolean(element(derTag.boolean, hex('00')))).toBe(false);
    expect(() => derBoolean(element(derTag.boolean, hex('')))).toThrow(DerError);
    expect([...derBits(element(derTag.bitString, hex('00 0a')))]).toEqual([10]);
    expect(() => derBits(element(derTag.bitString, hex('01 0a')))).toThrow(DerError);
  });
});
