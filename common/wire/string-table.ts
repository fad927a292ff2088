import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';

/** Strings that one frame may name; beyond it the encoder refuses and the decoder calls the frame malformed. */
const stringCountMax = 65_536;
/** Prefix sharing makes long strings of few bytes; this bounds what one frame can make of them. */
const stringCharsTotalMax = 8 * 1_024 * 1_024;

/*
 * A reference is a varint: 0 defines the next string in place, n names the n-th one defined before. A definition is
 * the number of characters shared with the string defined before it, and the rest. Data points of one file share
 * nearly all of theirs.
 */
export class StringTableWriter {
  readonly #references = new Map<string, number>();
  #previous = '';

  reference(writer: ByteWriter, text: string): void {
    const known = this.#references.get(text);
    if (known !== undefined) {
      writer.varint(known);
      return;
    }
    if (this.#references.size >= stringCountMax) {
      throw new RangeError(`a frame names at most ${stringCountMax} strings`);
    }
    this.#references.set(text, this.#references.size + 1);
    const sharedChars = sharedPrefixChars(this.#previous, text);
    writer.byte(0);
    writer.varint(sharedChars);
    writer.text(text.slice(sharedChars));
    this.#previous = text;
  }
}

/** Reads what StringTableWriter wrote. */
export class StringTableReader {
  readonly #strings: string[] = [];
  #charsTotal = 0;
  #previous = '';

  reference(reader: ByteReader): string {
    const reference = reader.varint();
    if (reference > 0) {
      const known = this.#strings[reference - 1];
      if (known === undefined) reader.fail('names a string that is not defined');
      return known;
    }
    const sharedChars = reader.varint();
    if (sharedChars > this.#previous.length) reader.fail('shares more than there is');
    const text = this.#previous.slice(0, sharedChars) + reader.text();
    this.#charsTotal += text.length;
    if (this.#strings.length >= stringCountMax || this.#charsTotal > stringCharsTotalMax) {
      reader.fail('too many strings');
    }
    this.#strings.push(text);
    this.#previous = text;
    return text;
  }
}

/** Never splits a surrogate pair, as the rest of the string has to be UTF-8 on its own. */
function sharedPrefixChars(left: string, right: string): number {
  const charsMax = Math.min(left.length, right.length);
  let chars = 0;
  while (chars < charsMax && left.charCodeAt(chars) === right.charCodeAt(chars)) chars += 1;
  if (chars > 0 && isHighSurrogate(left.charCodeAt(chars - 1))) chars -= 1;
  return chars;
}

function isHighSurrogate(codeUnit: number): boolean {
  return codeUnit >= 0xd800 && codeUnit <= 0xdbff;
}
