import type { Area, PerArea } from '../../common/channel/area.ts';
import type { Registration } from '../../common/channel/message.ts';
import { compileDataPointPattern } from '../../common/wire/data-point.ts';

/** Whether a table is registered. */
export type TableFilter = (table: string) => boolean;

/** Answers kept for each area; when there are more tables, all are forgotten and worked out anew. */
const keptAnswersMax = 4_096;

/** A filter for each area; undefined for an area without registrations, of which nothing is wanted. */
export function compileTableFilters(
  registrations: readonly Registration[],
): PerArea<TableFilter | undefined> {
  return {
    encrypted: compileArea(registrations, 'encrypted'),
    unencrypted: compileArea(registrations, 'unencrypted'),
  };
}

function compileArea(registrations: readonly Registration[], area: Area): TableFilter | undefined {
  const patterns = registrations
    .filter((registration) => registration.area === area)
    .map((registration) => compileDataPointPattern(registration.tables));
  if (patterns.length === 0) return undefined;
  const answers = new Map<string, boolean>();
  return (table) => {
    let isWanted = answers.get(table);
    if (isWanted === undefined) {
      isWanted = patterns.some((matches) => matches(table));
      if (answers.size >= keptAnswersMax) answers.clear();
      answers.set(table, isWanted);
    }
    return isWanted;
  };
}
