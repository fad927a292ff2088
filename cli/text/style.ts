import { stripVTControlCharacters } from 'node:util';

const codes = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

/** Puts emphasis on text; the identity where colour is off. */
export type Style = Readonly<Record<keyof typeof codes, (text: string) => string>>;

/** Escape sequences of ECMA-48 (SGR), or none at all. */
export function createStyle(usesColour: boolean): Style {
  const wrap =
    (code: number) =>
    (text: string): string =>
      usesColour ? `\u001B[${code}m${text}\u001B[0m` : text;
  return {
    bold: wrap(codes.bold),
    dim: wrap(codes.dim),
    red: wrap(codes.red),
    green: wrap(codes.green),
    yellow: wrap(codes.yellow),
    cyan: wrap(codes.cyan),
  };
}

const segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** The characters as a reader sees them (grapheme clusters), without escape sequences. */
export function visibleCharacters(text: string): string[] {
  return Array.from(segmenter.segment(stripVTControlCharacters(text)), ({ segment }) => segment);
}

/** Control characters in data would otherwise reach the terminal: an application may save anything. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, (character) => {
    const codePoint = character.codePointAt(0) ?? 0;
    return shortEscapes.get(character) ?? String.raw`\u` + codePoint.toString(16).padStart(4, '0');
  });
}

const shortEscapes: ReadonlyMap<string, string> = new Map([
  ['\n', String.raw`\n`],
  ['\r', String.raw`\r`],
  ['\t', String.raw`\t`],
]);
