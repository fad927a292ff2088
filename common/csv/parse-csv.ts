import { isUtf8 } from 'node:buffer';

import { csvFailure, type CsvOutcome } from './csv-error.ts';

/** Bounds of one CSV; beyond them it is refused as a whole, with the line in the error. */
export interface CsvLimits {
  /** Fields in one record. SQLite's own bound for columns is 2,000. */
  readonly columnsMax: number;
  /** Characters in one field, after quotes are removed. */
  readonly fieldCharactersMax: number;
}

const lineFeed = 10;
const carriageReturn = 13;
const quote = 34;
const comma = 44;
const space = 32;
const tab = 9;
const byteOrderMark = '\uFEFF';

/**
 * The text of `content`, without a byte order mark.
 * Fails with `not-utf8` or `nul-character`; no encoding is guessed.
 */
export function decodeCsv(content: Uint8Array): CsvOutcome<string> {
  const buffer = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  if (!isUtf8(buffer)) {
    return csvFailure('not-utf8', 1, 'the file is not UTF-8 text; save it as UTF-8');
  }
  const decoded = buffer.toString('utf8');
  const text = decoded.startsWith(byteOrderMark) ? decoded.slice(1) : decoded;
  const nulIndex = text.indexOf('\u0000');
  if (nulIndex !== -1) {
    return csvFailure('nul-character', lineAt(text, nulIndex), 'a NUL character is not text');
  }
  return { isOk: true, result: text };
}

/**
 * The records of `text` by RFC 4180, comma separated, where parsers agree (see DESIGN.md):
 * a line ends at LF, CRLF or CR; a quoted field may hold commas, line ends and doubled quotes; a quote inside an
 * unquoted field is data; blanks after a closing quote are dropped; empty lines are no records, except that a text
 * of nothing but line ends is one record with one empty field. Records may differ in length.
 */
export function parseCsv(
  text: string,
  limits: CsvLimits,
): CsvOutcome<readonly (readonly string[])[]> {
  const records: string[][] = [];
  let record: string[] = [];
  let fieldStart = 0;
  const end = text.length;
  const hasQuotes = text.includes('"');
  for (let index = 0; index <= end; index += 1) {
    const code = index === end ? lineFeed : text.charCodeAt(index);
    if (hasQuotes && code === quote && index === fieldStart) {
      const quoted = scanQuoted(text, index);
      if (!quoted.isOk) return quoted;
      record.push(quoted.result.field);
      index = quoted.result.end;
      if (index >= end || text.charCodeAt(index) !== comma) {
        records.push(record);
        record = [];
      }
    } else if (code === comma) {
      record.push(text.slice(fieldStart, index));
    } else if (code === lineFeed || code === carriageReturn) {
      if (index > fieldStart || record.length > 0) {
        record.push(text.slice(fieldStart, index));
        records.push(record);
        record = [];
      }
    } else {
      continue;
    }
    fieldStart = index + 1;
  }
  if (records.length === 0 && end > 0) records.push(['']);
  return checkLimits(records, limits);
}

/** The field whose opening quote is at `start`, and the index of the comma, line end or end of text behind it. */
function scanQuoted(
  text: string,
  start: number,
): CsvOutcome<{ readonly field: string; readonly end: number }> {
  let closing = text.indexOf('"', start + 1);
  let hasDoubled = false;
  while (closing !== -1 && text.charCodeAt(closing + 1) === quote) {
    hasDoubled = true;
    closing = text.indexOf('"', closing + 2);
  }
  if (closing === -1) {
    return csvFailure('unterminated-quote', lineAt(text, start), 'a quoted field has no end');
  }
  let end = closing + 1;
  while (isBlank(text.charCodeAt(end))) end += 1;
  const next = text.charCodeAt(end);
  if (end < text.length && next !== comma && next !== lineFeed && next !== carriageReturn) {
    return csvFailure(
      'text-after-quote',
      lineAt(text, end),
      'text follows the closing quote of a field; double a quote that is part of the field',
    );
  }
  const raw = text.slice(start + 1, closing);
  return { isOk: true, result: { field: hasDoubled ? raw.replaceAll('""', '"') : raw, end } };
}

function checkLimits(
  records: readonly (readonly string[])[],
  limits: CsvLimits,
): CsvOutcome<readonly (readonly string[])[]> {
  for (const [index, record] of records.entries()) {
    if (record.length > limits.columnsMax) {
      return csvFailure(
        'too-many-columns',
        index + 1,
        `${record.length} fields, at most ${limits.columnsMax} are allowed`,
      );
    }
    for (const field of record) {
      if (field.length > limits.fieldCharactersMax) {
        return csvFailure(
          'field-too-long',
          index + 1,
          `a field of ${field.length} characters, at most ${limits.fieldCharactersMax} are allowed`,
        );
      }
    }
  }
  return { isOk: true, result: records };
}

function isBlank(code: number): boolean {
  return code === space || code === tab;
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split(/\r\n|\r|\n/).length;
}
