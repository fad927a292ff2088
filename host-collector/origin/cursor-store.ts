import { z } from 'zod';

import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { VmId } from '../../common/wire/vm-descriptor.ts';
import type { GuestArea, GuestCursor } from '../vm/guest-listener.ts';

const cursorRow = z.object({ generation: z.string(), row_id: z.int() });

/** Where one VM's guest databases are read up to, durable with the frames that hold the rows. */
export class CursorStore {
  readonly #database: Database;
  readonly #vm: VmId;
  readonly #write: Statement<[string, string, string, number]>;

  constructor(database: Database, vm: VmId) {
    this.#database = database;
    this.#vm = vm;
    this.#write = database.prepare(
      `INSERT INTO collector_cursor (vm, area, generation, row_id) VALUES (?, ?, ?, ?)
       ON CONFLICT (vm, area) DO UPDATE SET generation = excluded.generation, row_id = excluded.row_id`,
    );
  }

  read(area: GuestArea): GuestCursor | null {
    const found = this.#database
      .prepare('SELECT generation, row_id FROM collector_cursor WHERE vm = ? AND area = ?')
      .get(this.#vm, area);
    if (found === undefined) return null;
    const { generation, row_id: rowId } = cursorRow.parse(found);
    return { generation, rowId };
  }

  /** Within the caller's transaction. */
  write(area: GuestArea, cursor: GuestCursor): void {
    this.#write.run(this.#vm, area, cursor.generation, cursor.rowId);
  }

  /** Within the caller's transaction. */
  remove(): void {
    this.#database.prepare('DELETE FROM collector_cursor WHERE vm = ?').run(this.#vm);
  }
}
