import { z } from 'zod';

import type { Database, Statement } from '../../common/sqlite/database.ts';
import type { VmId } from '../../common/wire/vm-descriptor.ts';
import type { EngineBounds } from '../specifiers/engine-bounds.ts';
import { SpecifierEngine, type EngineInput } from '../specifiers/specifier-engine.ts';
import { inputsFromJson, inputsToJson } from './engine-input-json.ts';

/** The journal is folded into a snapshot once it is this long, or twice as long as the last snapshot. */
const journalCharsMin = 256 * 1_024;

const vmRow = z.object({
  snapshot: z.string().nullable(),
  snapshot_position: z.int(),
});
const journalRow = z.object({ position: z.int(), inputs: z.string() });

/**
 * The durable state of one VM's engine: a snapshot and the inputs since. As the engine is deterministic, replaying them
 * gives the very same state; what a replay delivers is in the stream log already. So a commit writes what came in, not
 * what it changed, and a snapshot, whose size is bounded by the engine's bounds, costs at most half of what is written.
 */
export class EngineStore {
  readonly #database: Database;
  readonly #vm: VmId;
  readonly #bounds: EngineBounds;
  readonly #insertJournal: Statement<[string, number, string]>;
  #position = 0;
  #journalChars = 0;
  #snapshotChars = 0;

  constructor(database: Database, vm: VmId, bounds: EngineBounds) {
    this.#database = database;
    this.#vm = vm;
    this.#bounds = bounds;
    this.#insertJournal = database.prepare(
      'INSERT INTO collector_journal (vm, position, inputs) VALUES (?, ?, ?)',
    );
  }

  /** The engine as of the last commit; null when this VM has none. */
  load(): SpecifierEngine | null {
    const found = this.#database
      .prepare('SELECT snapshot, snapshot_position FROM collector_vm WHERE vm = ?')
      .get(this.#vm);
    if (found === undefined) return null;
    const row = vmRow.parse(found);
    const engine =
      row.snapshot === null
        ? new SpecifierEngine(this.#bounds)
        : SpecifierEngine.restore(JSON.parse(row.snapshot), this.#bounds);
    this.#position = row.snapshot_position;
    this.#snapshotChars = row.snapshot?.length ?? 0;
    this.#journalChars = 0;
    const entries = this.#database
      .prepare(
        'SELECT position, inputs FROM collector_journal WHERE vm = ? AND position > ? ORDER BY position',
      )
      .iterate(this.#vm, row.snapshot_position);
    for (const entry of entries) {
      const { position, inputs } = journalRow.parse(entry);
      for (const input of inputsFromJson(inputs)) engine.apply(input, () => {});
      this.#position = position;
      this.#journalChars += inputs.length;
    }
    return engine;
  }

  /** Writes what `engine` was moved by, or all of it when the journal is long. Within the caller's transaction. */
  write(engine: SpecifierEngine, inputs: readonly EngineInput[]): void {
    const json = inputsToJson(inputs);
    this.#journalChars += json.length;
    if (this.#journalChars > Math.max(journalCharsMin, 2 * this.#snapshotChars)) {
      this.snapshot(engine);
      return;
    }
    this.#position += 1;
    this.#insertJournal.run(this.#vm, this.#position, json);
  }

  /** Replaces snapshot and journal by the state of `engine`. Within the caller's transaction. */
  snapshot(engine: SpecifierEngine): void {
    const json = JSON.stringify(engine.state());
    this.#database
      .prepare(
        `INSERT INTO collector_vm (vm, snapshot, snapshot_position) VALUES (?, ?, ?)
         ON CONFLICT (vm) DO UPDATE SET snapshot = excluded.snapshot,
           snapshot_position = excluded.snapshot_position`,
      )
      .run(this.#vm, json, this.#position);
    this.#database.prepare('DELETE FROM collector_journal WHERE vm = ?').run(this.#vm);
    this.#snapshotChars = json.length;
    this.#journalChars = 0;
  }

  /** Forgets the VM. Within the caller's transaction. */
  remove(): void {
    this.#database.prepare('DELETE FROM collector_vm WHERE vm = ?').run(this.#vm);
    this.#database.prepare('DELETE FROM collector_journal WHERE vm = ?').run(this.#vm);
  }
}
