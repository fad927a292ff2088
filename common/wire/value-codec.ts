import assert from 'node:assert';

import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import type { Value } from './value.ts';

/*
 * One byte of tag, then the payload:
 *   0 null   1 text   2 bytes   3 float64   4 integer >= 0   5 integer < 0   6 bigint, 64 bits
 *   7..15   decimal, positive: the number is varint / 10^(tag - 6)
 *   16..24  decimal, negative: the number is -varint / 10^(tag - 15)
 *   25..255 the integer tag - 25
 * Division of two exactly represented integers is correctly rounded (IEEE 754 section 5.4.1), so a decimal whose
 * quotient is the very same double is exact.
 */
const tags = {
  null: 0,
  text: 1,
  bytes: 2,
  float64: 3,
  positive: 4,
  negative: 5,
  bigint: 6,
} as const;
const positiveDecimalTag = 6;
const negativeDecimalTag = 15;
const decimalPlacesMax = 9;
const smallIntegerTag = 25;
const smallIntegerMax = 255 - smallIntegerTag;

/** Decimals with more digits than this are no shorter than a float64. */
const decimalMantissaMax = 2 ** 42;
const powersOfTen = Array.from({ length: decimalPlacesMax + 1 }, (_, places) => 10 ** places);

/** Writes `value` so that {@link readValue} returns the same type and bits. Text must be well-formed UTF-16. */
export function writeValue(writer: ByteWriter, value: Value): void {
  if (typeof value === 'number') {
    writeNumber(writer, value);
  } else if (value === null) {
    writer.byte(tags.null);
  } else if (typeof value === 'string') {
    writer.byte(tags.text);
    writer.text(value);
  } else if (typeof value === 'bigint') {
    assert(BigInt.asIntN(64, value) === value, 'integers have 64 bits');
    writer.byte(tags.bigint);
    writer.int64(value);
  } else {
    writer.byte(tags.bytes);
    writer.bytes(value);
  }
}

function writeNumber(writer: ByteWriter, value: number): void {
  if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
    if (value >= 0 && value <= smallIntegerMax) {
      writer.byte(smallIntegerTag + value);
    } else if (value >= 0) {
      writer.byte(tags.positive);
      writer.varint(value);
    } else {
      writer.byte(tags.negative);
      writer.varint(-value);
    }
    return;
  }
  const magnitude = Math.abs(value);
  for (let places = 1; places <= decimalPlacesMax; places += 1) {
    const power = powersOfTen[places] ?? 1;
    const mantissa = Math.round(magnitude * power);
    if (mantissa > decimalMantissaMax || Number.isNaN(mantissa)) break;
    if (mantissa > 0 && mantissa / power === magnitude) {
      writer.byte((value > 0 ? positiveDecimalTag : negativeDecimalTag) + places);
      writer.varint(mantissa);
      return;
    }
  }
  writer.byte(tags.float64);
  writer.float64(value);
}

/** @throws MalformedBytes when the bytes are no value. */
export function readValue(reader: ByteReader): Value {
  const tag = reader.byte();
  if (tag >= smallIntegerTag) return tag - smallIntegerTag;
  if (tag > negativeDecimalTag) {
    return -reader.varint() / (powersOfTen[tag - negativeDecimalTag] ?? 1);
  }
  if (tag > positiveDecimalTag) {
    return reader.varint() / (powersOfTen[tag - positiveDecimalTag] ?? 1);
  }
  switch (tag) {
    case tags.null:
      return null;
    case tags.text:
      return reader.text();
    case tags.bytes:
      return reader.bytes();
    case tags.float64:
      return reader.float64();
    case tags.positive:
      return reader.varint();
    case tags.negative:
      return -reader.varint();
    default:
      return reader.int64();
  }
}
