/** Bytes that are no DER, or not the DER that was expected. */
export class DerError extends Error {
  override readonly name = 'DerError';
}

/** Identifier octets (X.690, 8.1.2) of what certificates and revocation lists are made of. */
export const derTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const;

/** One element; views of the input, not copies. */
export interface DerElement {
  readonly tag: number;
  readonly content: Uint8Array;
  /** With identifier and length. */
  readonly bytes: Uint8Array;
}

const longTag = 0x1f;
const longLength = 0x80;
/** Certificates and lists are far below 4 GiB. */
const lengthBytesMax = 4;
const arcsMax = 64;

/**
 * The elements that `bytes` consist of, in one pass. Only what DER allows: definite lengths in their shortest form, tags of one byte.
 * @throws DerError
 */
export function derElements(bytes: Uint8Array): DerElement[] {
  const elements: DerElement[] = [];
  for (let offset = 0; offset < bytes.length;) {
    const element = elementAt(bytes, offset);
    elements.push(element);
    offset += element.bytes.length;
  }
  return elements;
}

/** The one element that `bytes` are. @throws DerError */
export function derElement(bytes: Uint8Array, tag: number): DerElement {
  const element = elementAt(bytes, 0);
  if (element.bytes.length !== bytes.length) throw new DerError('more than one element');
  return expectTag(element, tag);
}

/** @throws DerError when there is no such element, or it is something else. */
export function expectTag(element: DerElement | undefined, tag: number): DerElement {
  if (element?.tag === tag) return element;
  throw new DerError(`tag ${element?.tag ?? 'missing'} where ${tag} is expected`);
}

/** An integer that is not negative, in hexadecimal, lower case, without leading zeros. @throws DerError */
export function derUnsigned(element: DerElement | undefined): string {
  const { content } = expectTag(element, derTag.integer);
  const [first] = content;
  if (first === undefined || first >= 0x80) throw new DerError('the integer is negative or empty');
  return Buffer.from(content)
    .toString('hex')
    .replace(/^0+(?=.)/, '');
}

/** @throws DerError */
export function derBoolean(element: DerElement | undefined): boolean {
  const { content } = expectTag(element, derTag.boolean);
  if (content.length !== 1) throw new DerError('a boolean is one byte');
  return content[0] !== 0;
}

/** `2.5.29.17`. @throws DerError */
export function derObjectIdentifier(element: DerElement | undefined): string {
  const { content } = expectTag(element, derTag.objectIdentifier);
  const arcs: number[] = [];
  let value = 0;
  for (const byte of content) {
    value = value * 128 + (byte & 0x7f);
    if (!Number.isSafeInteger(value)) throw new DerError('an arc exceeds 2^53 - 1');
    if (byte >= 0x80) continue;
    arcs.push(value);
    value = 0;
  }
  const [first, ...rest] = arcs;
  const isWhole = (content.at(-1) ?? 0x80) < 0x80;
  if (first === undefined || !isWhole || arcs.length > arcsMax) {
    throw new DerError('no object identifier');
  }
  const root = Math.min(2, Math.floor(first / 40));
  return [root, first - root * 40, ...rest].join('.');
}

/** UTCTime or GeneralizedTime as RFC 5280 has them (4.1.2.5): whole seconds, UTC. @throws DerError */
export function derTimeMs(element: DerElement | undefined): number {
  if (element === undefined) throw new DerError('a time is missing');
  const text = Buffer.from(element.content).toString('latin1');
  const [, year = '', ...rest] =
    (element.tag === derTag.utcTime ? utcTime : generalizedTime).exec(text) ?? [];
  if (element.tag !== derTag.utcTime) expectTag(element, derTag.generalizedTime);
  const century = year.length === 4 ? '' : year < '50' ? '20' : '19';
  const [month, day, hour, minute, second] = rest;
  const ms = Date.parse(`${century}${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  if (Number.isNaN(ms)) throw new DerError('no time in UTC with seconds');
  return ms;
}

const utcTime = /^(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/;
const generalizedTime = /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/;

/** A bit string of whole bytes. @throws DerError */
export function derBits(element: DerElement | undefined): Uint8Array {
  const { content } = expectTag(element, derTag.bitString);
  if (content[0] !== 0) throw new DerError('the bit string is not of whole bytes');
  return content.subarray(1);
}

function elementAt(bytes: Uint8Array, offset: number): DerElement {
  const tag = bytes[offset];
  const first = bytes[offset + 1];
  if (tag === undefined || first === undefined) throw new DerError('the element ends early');
  if ((tag & longTag) === longTag) throw new DerError('a tag of more than one byte');
  let length = first;
  let start = offset + 2;
  if (first >= longLength) {
    const lengthBytes = bytes.subarray(start, start + (first & 0x7f));
    if (lengthBytes.length === 0 || lengthBytes.length > lengthBytesMax) {
      throw new DerError('the length is indefinite or too large');
    }
    length = lengthBytes.reduce((value, byte) => value * 256 + byte, 0);
    const isShortest = length >= longLength && lengthBytes[0] !== 0;
    if (!isShortest) throw new DerError('the length is not in its shortest form');
    start += lengthBytes.length;
  }
  const end = start + length;
  if (end > bytes.length) throw new DerError('the element ends early');
  return { tag, content: bytes.subarray(start, end), bytes: bytes.subarray(offset, end) };
}
