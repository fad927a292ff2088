/** Why bytes are not a CSV that can become rows. Stable names: they are stored with what is quarantined. */
export type CsvErrorCode =
  | 'not-utf8'
  | 'nul-character'
  | 'unterminated-quote'
  | 'text-after-quote'
  | 'too-many-columns'
  | 'field-too-long'
  | 'label-too-long';

/** What is wrong and where, in words for the person who writes the file. */
export interface CsvError {
  readonly code: CsvErrorCode;
  /** From 1, counting line ends as an editor does. */
  readonly line: number;
  readonly message: string;
}

export type CsvOutcome<Result> =
  | { readonly isOk: true; readonly result: Result }
  | { readonly isOk: false; readonly error: CsvError };

export function csvFailure(
  code: CsvErrorCode,
  line: number,
  message: string,
): { readonly isOk: false; readonly error: CsvError } {
  return { isOk: false, error: { code, line, message: `line ${line}: ${message}` } };
}
