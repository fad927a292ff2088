import { visibleCharacters } from './style.ts';

export interface Column {
  readonly title: string;
  /** Numbers are easier to compare flush right. */
  readonly alignment?: 'left' | 'right';
  /** May be cut when the table is wider than the terminal, but not below this. */
  readonly widthMin?: number;
}

const gap = '  ';

/**
 * Lines of a table with a title line. Where `widthMax` is given, columns with a `widthMin` are cut (widest first, the
 * cut marked by `…`) until the table fits; without one nothing is ever cut, so that pipes get everything.
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  widthMax?: number,
): string[] {
  const widths = columns.map((column, index) =>
    Math.max(
      visibleCharacters(column.title).length,
      ...rows.map((row) => visibleCharacters(row[index] ?? '').length),
    ),
  );
  if (widthMax !== undefined) shrink(columns, widths, widthMax);
  const line = (cells: readonly string[]): string =>
    columns
      .map((column, index) => fit(cells[index] ?? '', widths[index] ?? 0, column.alignment))
      .join(gap)
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...rows.map((row) => line(row))];
}

function shrink(columns: readonly Column[], widths: number[], widthMax: number): void {
  for (;;) {
    const total = widths.reduce((sum, width) => sum + width, 0) + gap.length * (widths.length - 1);
    if (total <= widthMax) return;
    const candidates = columns
      .map((column, index) => ({ index, width: widths[index] ?? 0, widthMin: column.widthMin }))
      .filter(({ width, widthMin }) => widthMin !== undefined && width > widthMin)
      .toSorted((left, right) => right.width - left.width);
    const [widest] = candidates;
    if (widest === undefined) return;
    widths[widest.index] = widest.width - 1;
  }
}

function fit(text: string, width: number, alignment: Column['alignment']): string {
  const characters = visibleCharacters(text);
  const excess = characters.length - width;
  if (excess > 0) return `${characters.slice(0, Math.max(0, width - 1)).join('')}…`;
  const padding = ' '.repeat(-excess);
  return alignment === 'right' ? padding + text : text + padding;
}
