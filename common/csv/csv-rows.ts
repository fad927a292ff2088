import { csvFailure, type CsvOutcome } from './csv-error.ts';
import {
  columnLabels,
  firstRecordIsLabels,
  type HeaderMode,
  looksLikeLabels,
  positionalLabels,
} from './csv-labels.ts';
import { csvValue, type CsvValue } from './csv-value.ts';
import { type CsvLimits, parseCsv } from './parse-csv.ts';

/** One row to be stored; `columns` and `values` have the same length. */
export interface CsvRow {
  readonly columns: readonly string[];
  readonly values: readonly CsvValue[];
}

/** Characters of a label; longer ones are refused rather than cut, as two could then be one. */
export const labelCharactersMax = 512;

/**
 * The rows of a plain save. `previousText` is what the file held before (empty when it is new): when `text` only
 * adds lines to it, just those are rows, under the labels of the whole; else all lines are.
 */
export function rowsOfSave(
  text: string,
  previousText: string,
  mode: HeaderMode,
  limits: CsvLimits,
): CsvOutcome<readonly CsvRow[]> {
  const parsed = parseCsv(text, limits);
  if (!parsed.isOk) return parsed;
  const records = parsed.result;
  const isLabelled = firstRecordIsLabels(records, mode, true);
  const known = commonLinesLength(text, previousText);
  let knownCount = 0;
  if (known > 0) {
    // A quoted field may span the seam; then the old text does not parse alone and all lines are rows.
    const before = parseCsv(text.slice(0, known), limits);
    if (before.isOk) knownCount = before.result.length;
  }
  const firstRow = Math.max(knownCount, isLabelled ? 1 : 0);
  return labelRows(records, firstRow, isLabelled ? records[0] : undefined);
}

/** What a logger's file was like before an append. */
export interface LoggerState {
  /** The file's first record; undefined while it is empty. */
  readonly first: readonly string[] | undefined;
  /** Records in the file, capped at 2: only none, one and more are told apart. */
  readonly recordCount: number;
  /** Whether `first` was found to be labels. */
  readonly isLabelled: boolean;
}

export const emptyLogger: LoggerState = { first: undefined, recordCount: 0, isLabelled: false };

export interface LoggerRows {
  readonly rows: readonly CsvRow[];
  readonly state: LoggerState;
  /**
   * `maybe`: the only record so far looks like labels, so its row should be held until the next line decides.
   * `yes`: a number followed, so such a held row is to be withdrawn.
   */
  readonly firstIsLabels: 'maybe' | 'yes' | 'no';
}

/** The rows of lines appended to a file in `state`. */
export function rowsOfAppend(
  text: string,
  state: LoggerState,
  mode: HeaderMode,
  limits: CsvLimits,
): CsvOutcome<LoggerRows> {
  const parsed = parseCsv(text, limits);
  if (!parsed.isOk) return parsed;
  const added = parsed.result;
  const isNew = state.first === undefined;
  const all = state.first === undefined ? added : [state.first, ...added];
  const isLabelled = state.isLabelled || firstRecordIsLabels(all, mode, false);
  const labelled = labelRows(added, isNew && isLabelled ? 1 : 0, isLabelled ? all[0] : undefined);
  if (!labelled.isOk) return labelled;
  const isOpen =
    !isLabelled && mode === 'auto' && all.length === 1 && looksLikeLabels(all[0] ?? []);
  return {
    isOk: true,
    result: {
      rows: labelled.result,
      state: {
        first: all[0],
        recordCount: Math.min(2, state.recordCount + added.length),
        isLabelled,
      },
      firstIsLabels: isLabelled && !state.isLabelled ? 'yes' : isOpen ? 'maybe' : 'no',
    },
  };
}

/** The state of a logger whose file holds `text`, for the first append after a start or by another program. */
export function loggerState(text: string, mode: HeaderMode, limits: CsvLimits): LoggerState {
  if (text === '') return emptyLogger;
  const parsed = parseCsv(text, limits);
  if (!parsed.isOk) return emptyLogger;
  return {
    first: parsed.result[0],
    recordCount: Math.min(2, parsed.result.length),
    isLabelled: firstRecordIsLabels(parsed.result, mode, false),
  };
}

function labelRows(
  records: readonly (readonly string[])[],
  firstRow: number,
  labels: readonly string[] | undefined,
): CsvOutcome<readonly CsvRow[]> {
  const tooLong = labels?.find((label) => label.length > labelCharactersMax);
  if (tooLong !== undefined) {
    const message = `a label of ${tooLong.length} characters, at most ${labelCharactersMax} are allowed`;
    return csvFailure('label-too-long', 1, message);
  }
  const rows: CsvRow[] = [];
  let width = -1;
  let all: readonly string[] = [];
  for (let index = firstRow; index < records.length; index += 1) {
    const record = records[index] ?? [];
    if (record.length !== width) {
      width = record.length;
      all =
        labels === undefined
          ? positionalLabels(width)
          : columnLabels(labels, width).slice(0, width);
    }
    rows.push({ columns: all, values: record.map(csvValue) });
  }
  return { isOk: true, result: rows };
}

/**
 * How much of `text` repeats whole lines of `previousText` when it adds to them; 0 when it does not. An unfinished last
 * line of the old text that goes on in the new one is new.
 */
function commonLinesLength(text: string, previousText: string): number {
  if (previousText === '' || text.length <= previousText.length) return 0;
  if (!text.startsWith(previousText)) return 0;
  // Nothing but line ends added: the same save again, which is a row again.
  if (/^[\r\n]*$/.test(text.slice(previousText.length))) return 0;
  if (/^[\r\n]/.test(text.slice(previousText.length))) return previousText.length;
  return Math.max(previousText.lastIndexOf('\n'), previousText.lastIndexOf('\r')) + 1;
}
