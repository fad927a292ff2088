import { constants } from 'node:os';

import type { AreaState } from './area-state.ts';
import type { TableRow } from './kpi-tables.ts';
import type { StoreOptions } from './store-options.ts';

const { EFBIG, EINVAL, ENOSPC } = constants.errno;

/** Why a save is refused: its errno for close(2), and what the quarantine says. */
export interface Refusal {
  readonly errno: number;
  readonly code: string;
  readonly message: string;
}

/** Whether the tables have room for `rows` of `path`. */
export function tableRefusal(
  state: AreaState,
  path: string,
  rows: readonly TableRow[],
): Refusal | undefined {
  let checked: readonly string[] | undefined;
  for (const { columns } of rows) {
    if (columns === checked) continue;
    checked = columns;
    const code = state.tables.refusal(path, columns);
    if (code === 'too-many-columns') {
      return { errno: EINVAL, code, message: 'the table of this file has too many columns' };
    }
    if (code === 'too-many-tables') {
      return { errno: ENOSPC, code, message: 'the database has too many tables' };
    }
  }
  return undefined;
}

export function tooLarge(options: StoreOptions): Refusal {
  const message = `more than ${options.fileBytesMax} bytes in one file`;
  return { errno: EFBIG, code: 'too-large', message };
}

/** The row of an opaque save. */
export function opaqueRow(content: Uint8Array): TableRow {
  return { columns: ['content'], values: [content] };
}
