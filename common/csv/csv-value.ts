/**
 * A field as SQLite stores it: `bigint` is INTEGER, `number` is REAL, `string` is TEXT, null is NULL. The two kinds of
 * number are kept apart because better-sqlite3 binds every JavaScript number as REAL.
 */
export type CsvValue = bigint | number | string | null;

const int64Min = -(2n ** 63n);
const int64Max = 2n ** 63n - 1n;
/** Up to this many digits an integer is certainly exact as a JavaScript number. */
const safeDigits = 15;
/** An integer of 64 bits has no more; converting many digits takes far more time than reading them. */
const integerDigitsMax = 19;
const numberShape = /^([+-]?)(0|[1-9][0-9]*)?(?:(\.)([0-9]*))?([eE][+-]?[0-9]+)?$/;

/**
 * The value of one field. Numbers are decimal with an optional sign, fraction and exponent, surrounding blanks
 * allowed; integers of 64 bits are exact. A leading zero (`007`), an overflow, NaN, Infinity, hexadecimal and all else
 * are TEXT, exactly as written; the empty field is null. `-0` is the integer 0.
 */
export function csvValue(field: string): CsvValue {
  if (field.length === 0) return null;
  const digits = plainInteger(field);
  if (digits !== undefined) return digits;
  if (!mayStartNumber(field.charCodeAt(0))) return field;
  const match = numberShape.exec(withoutBlanks(field));
  if (match === null) return field;
  const [, sign = '', whole = '', point, fraction = '', exponent] = match;
  if (whole === '' && fraction === '') return field;
  if (point === undefined && exponent === undefined) {
    if (whole.length > integerDigitsMax) return field;
    const integer = BigInt(whole);
    const signed = sign === '-' ? -integer : integer;
    return signed < int64Min || signed > int64Max ? field : signed;
  }
  const real = Number(`${sign}${whole === '' ? '0' : whole}.${fraction}${exponent ?? ''}`);
  return Number.isFinite(real) ? real : field;
}

/** True when the field is INTEGER or REAL. */
export function isNumeric(field: string): boolean {
  const value = csvValue(field);
  return typeof value === 'bigint' || typeof value === 'number';
}

/** The commonest field, short and made of digits only, without a regular expression. */
function plainInteger(field: string): bigint | undefined {
  if (field.length > safeDigits) return undefined;
  let total = 0;
  for (let index = 0; index < field.length; index += 1) {
    const digit = field.charCodeAt(index) - 48;
    if (digit < 0 || digit > 9) return undefined;
    total = total * 10 + digit;
  }
  if (field.length > 1 && field.charCodeAt(0) === 48) return undefined;
  return BigInt(total);
}

/** By hand, as a regular expression that skips blanks at both ends takes quadratic time for a field full of them. */
function withoutBlanks(field: string): string {
  let start = 0;
  let end = field.length;
  while (start < end && isBlank(field.charCodeAt(start))) start += 1;
  while (end > start && isBlank(field.charCodeAt(end - 1))) end -= 1;
  return field.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9;
}

/** A digit, sign, point or blank. */
function mayStartNumber(code: number): boolean {
  return (code >= 48 && code <= 57) || [43, 45, 46, 32, 9].includes(code);
}
