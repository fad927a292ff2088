import { isNumeric } from './csv-value.ts';

/** Whether the first line of a file holds labels: decided by its content, or by the operator for a file pattern. */
export const headerModes = ['auto', 'always', 'never'] as const;
export type HeaderMode = (typeof headerModes)[number];

/** Column names that our own columns have; see guest-agent/store/schema.ts. */
const reservedLabels = ['row_id', 'saved_at_us'];
const identifierLike = /^[\p{L}_][\p{L}\p{N}_.-]*$/u;

/**
 * Folds A-Z as SQLite does when it compares column and table names; other letters are left alone, since SQLite takes
 * them for different.
 */
export function foldCase(name: string): string {
  return /[A-Z]/.test(name) ? name.replaceAll(/[A-Z]+/g, (run) => run.toLowerCase()) : name;
}

/** `column1` to `columnN`: what fields are called that have no label. */
export function positionalLabels(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `column${index + 1}`);
}

/**
 * Labels that can be column names together: surrounding blanks dropped, an empty one replaced by `columnX` of its
 * position. One that repeats an earlier label of the line (in any case of A-Z) or is `row_id` or `saved_at_us` gets
 * `_X` with its position appended, so that no value is lost. `count` fields are labelled, the missing ones by position.
 */
export function columnLabels(fields: readonly string[], count: number): readonly string[] {
  const taken = new Set(reservedLabels);
  const labels: string[] = [];
  for (let index = 0; index < Math.max(count, fields.length); index += 1) {
    const trimmed = fields[index]?.trim() ?? '';
    let label = trimmed === '' ? `column${index + 1}` : trimmed;
    while (taken.has(foldCase(label))) label = `${label}_${index + 1}`;
    taken.add(foldCase(label));
    labels.push(label);
  }
  return labels;
}

/** Every field looks like a name and none repeats: `cpu,mem_used`, not `up,up` or `5`. */
export function looksLikeLabels(fields: readonly string[]): boolean {
  const names = fields.map((field) => field.trim());
  return (
    names.every((name) => identifierLike.test(name)) &&
    new Set(names.map(foldCase)).size === names.length
  );
}

/**
 * Whether the first of `records` holds labels. `isTwoLineForm` is a plain save, where two lines are labels and
 * values, whatever they look like; else names must be followed by a number somewhere.
 */
export function firstRecordIsLabels(
  records: readonly (readonly string[])[],
  mode: HeaderMode,
  isTwoLineForm: boolean,
): boolean {
  const first = records[0];
  if (first === undefined || mode === 'never') return false;
  if (mode === 'always') return true;
  if (records.length === 1) return false;
  if (isTwoLineForm && records.length === 2) return true;
  return (
    looksLikeLabels(first) &&
    records.slice(1).some((record) => record.some((field) => isNumeric(field)))
  );
}
