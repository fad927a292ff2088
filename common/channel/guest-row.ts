import type { Value } from '../wire/value.ts';
import type { Area } from './area.ts';

/**
 * One row as the guest offers it to the host. (generation of the area's database, rowId) identifies it for ever;
 * rowIds rise within an area and may have gaps.
 */
export interface GuestRow {
  /** The directory of the mount that it came from. */
  readonly area: Area;
  /** The file's path below its directory, without a leading slash. */
  readonly table: string;
  /** From 1; one counter for all tables of an area, never reused. A safe integer. */
  readonly rowId: number;
  /** The guest's wall time of the save, µs of the Unix epoch. */
  readonly savedAtUs: number;
  /** The labels that this save had, in its order; `['content']` under `encrypted/`. */
  readonly columns: readonly string[];
  /** One for each column. null is an empty field; a label that the save did not have is not in `columns`. */
  readonly values: readonly Value[];
}
