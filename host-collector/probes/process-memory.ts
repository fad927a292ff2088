import type { Database } from '../../common/sqlite/database.ts';
import type { VmId } from '../../common/wire/vm-descriptor.ts';

/** Which process a number stood for when it was first read; outlives the probe. */
export interface ProcessMemory {
  /** null when nothing is known of `pid`. */
  recall(pid: number): string | null;
  remember(pid: number, identity: string): void;
}

/**
 * Remembers for one VM, durably: while the collector is away its hypervisor may end, and another process may get the
 * number. Forgotten with the VM's descriptor.
 */
export class StoredProcessMemory implements ProcessMemory {
  readonly #database: Database;
  readonly #vm: VmId;

  constructor(database: Database, vm: VmId) {
    this.#database = database;
    this.#vm = vm;
  }

  recall(pid: number): string | null {
    const identity = this.#database
      .prepare<[string, number], string>(
        'SELECT identity FROM collector_process WHERE vm = ? AND pid = ?',
      )
      .pluck()
      .get(this.#vm, pid);
    return identity ?? null;
  }

  remember(pid: number, identity: string): void {
    this.#database
      .prepare(
        `INSERT INTO collector_process (vm, pid, identity) VALUES (?, ?, ?)
         ON CONFLICT (vm) DO UPDATE SET pid = excluded.pid, identity = excluded.identity`,
      )
      .run(this.#vm, pid, identity);
  }
}
