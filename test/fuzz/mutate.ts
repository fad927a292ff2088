import type { FuzzRandom } from './fuzz-random.ts';

/** What an input may grow to. */
export interface MutationBounds {
  readonly inputBytesMax: number;
  /** Words of the format, put in as they are. */
  readonly dictionary: readonly string[];
}

type Mutation = (input: Buffer, random: FuzzRandom, context: MutationContext) => Buffer;

interface MutationContext extends MutationBounds {
  readonly samples: readonly Uint8Array[];
}

const mutationsMax = 6;
const repetitionsMax = 4_096;

const interestingNumbers = [
  0,
  1,
  0x7f,
  0x80,
  0xff,
  0x100,
  0x7fff,
  0x8000,
  0xffff,
  0x10000,
  0x7fffffff,
  0x80000000,
  0xffffffff,
  0x100000000,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 63,
  2 ** 64 - 2_048,
];
const interestingTexts = [
  '0',
  '-1',
  '1.5',
  '1e308',
  '1e999',
  '-0',
  'NaN',
  'null',
  'true',
  '[]',
  '{}',
  '""',
  '9007199254740991',
  '9007199254740993',
  '9223372036854775808',
  '99999999999999999999',
  '%00',
  '%',
  '%ff',
  '../',
  '\u0000',
  '\ud7ff',
  '\uffff',
  'é',
  '__proto__',
  'constructor',
];
/** What opens a level in JSON, CBOR, DER and our own containers. */
const openings = ['[', '{"a":', '[{"a":', '\u0081', '\u00a1\u0001', '0\u0080', '**/', '*a'].map(
  (text) => Buffer.from(text, 'latin1'),
);

/** One of `samples` with one to six changes, at most `inputBytesMax` bytes. */
export function mutate(
  samples: readonly Uint8Array[],
  random: FuzzRandom,
  bounds: MutationBounds,
): Buffer {
  let input: Buffer = Buffer.from(random.pick(samples));
  for (let left = 1 + random.below(mutationsMax); left > 0; left -= 1) {
    input = random.pick(mutations)(input, random, { ...bounds, samples });
    if (input.length > bounds.inputBytesMax) input = input.subarray(0, bounds.inputBytesMax);
  }
  return input;
}

const mutations: readonly Mutation[] = [
  flipBit,
  flipBit,
  setByte,
  setByte,
  truncate,
  removeRange,
  duplicateRange,
  repeatRange,
  insertNoise,
  insertOpenings,
  spliceSample,
  overwriteNumber,
  overwriteVarint,
  replaceDigits,
  insertWord,
  appendSample,
];

function flipBit(input: Buffer, random: FuzzRandom): Buffer {
  const at = random.below(input.length);
  if (input.length > 0) input[at] = (input[at] ?? 0) ^ (1 << random.below(8));
  return input;
}

function setByte(input: Buffer, random: FuzzRandom): Buffer {
  if (input.length > 0) input[random.below(input.length)] = random.word();
  return input;
}

function truncate(input: Buffer, random: FuzzRandom): Buffer {
  return input.subarray(0, random.below(input.length + 1));
}

function removeRange(input: Buffer, random: FuzzRandom): Buffer {
  const { from, to } = range(input, random);
  return Buffer.concat([input.subarray(0, from), input.subarray(to)]);
}

function duplicateRange(input: Buffer, random: FuzzRandom): Buffer {
  const { from, to } = range(input, random);
  return insert(input, random.below(input.length + 1), input.subarray(from, to));
}

function repeatRange(
  input: Buffer,
  random: FuzzRandom,
  { inputBytesMax }: MutationContext,
): Buffer {
  const from = random.below(input.length);
  const piece = input.subarray(from, from + 1 + random.below(12));
  const room = Math.floor((inputBytesMax - input.length) / Math.max(1, piece.length));
  const times = Math.min(room, random.below(repetitionsMax));
  return insert(input, from, Buffer.concat(Array.from({ length: times }, () => piece)));
}

function insertNoise(input: Buffer, random: FuzzRandom): Buffer {
  return insert(input, random.below(input.length + 1), random.bytes(1 + random.below(16)));
}

function insertOpenings(input: Buffer, random: FuzzRandom): Buffer {
  const opening = random.pick(openings);
  const levels = Array.from({ length: 1 + random.below(2_000) }, () => opening);
  return insert(input, random.below(input.length + 1), Buffer.concat(levels));
}

function spliceSample(input: Buffer, random: FuzzRandom, { samples }: MutationContext): Buffer {
  const other = Buffer.from(random.pick(samples));
  const head = input.subarray(0, random.below(input.length + 1));
  return Buffer.concat([head, other.subarray(random.below(other.length + 1))]);
}

function appendSample(input: Buffer, random: FuzzRandom, { samples }: MutationContext): Buffer {
  return Buffer.concat([input, random.pick(samples)]);
}

function overwriteNumber(input: Buffer, random: FuzzRandom): Buffer {
  const number = BigInt(random.pick(interestingNumbers));
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(number);
  if (random.once(2)) bytes.reverse();
  const width = random.pick([1, 2, 4, 8]);
  const piece = random.once(2) ? bytes.subarray(0, width) : bytes.subarray(8 - width);
  piece.copy(input, random.below(input.length));
  return input;
}

function overwriteVarint(input: Buffer, random: FuzzRandom): Buffer {
  const bytes: number[] = [];
  for (let left = random.pick(interestingNumbers); left >= 128; left = Math.floor(left / 128)) {
    bytes.push((left % 128) | 128);
  }
  const at = random.below(input.length);
  const tail = input.subarray(at + 1);
  return Buffer.concat([input.subarray(0, at), Buffer.from([...bytes, random.below(128)]), tail]);
}

function replaceDigits(input: Buffer, random: FuzzRandom): Buffer {
  const at = random.below(input.length);
  const text = input.toString('latin1', at);
  const [found] = /\d+/.exec(text) ?? [];
  if (found === undefined) return input;
  const from = at + text.indexOf(found);
  const head = input.subarray(0, from);
  const word = Buffer.from(random.pick(interestingTexts));
  return Buffer.concat([head, word, input.subarray(from + found.length)]);
}

function insertWord(input: Buffer, random: FuzzRandom, { dictionary }: MutationContext): Buffer {
  const word = random.pick([...interestingTexts, ...dictionary]);
  return insert(input, random.below(input.length + 1), Buffer.from(word));
}

function insert(input: Buffer, at: number, piece: Uint8Array): Buffer {
  return Buffer.concat([input.subarray(0, at), piece, input.subarray(at)]);
}

function range(input: Buffer, random: FuzzRandom): { from: number; to: number } {
  const from = random.below(input.length);
  return { from, to: from + random.below(Math.min(256, input.length - from) + 1) };
}
