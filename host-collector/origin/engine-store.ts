import { AssertionError } from 'node:assert';

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
  is_restored: z.int(),
});
const journalRow = z.object({ position: z.int(), inputs: z.string() });

/** What is durable of one VM's engine. */
export type StoredEngine =
  /** `isRestored`: by a copy of the database from before, see StoreMark. */
  | { readonly kind: 'engine'; readonly engine: SpecifierEngine; readonly isRestored: boolean }
  | { readonly kind: 'none' }
  /** This program can't read it; `lostCount` measurements wait in it for the end of their windows, as far as can be told. */
  | { readonly kind: 'unreadable'; readonly reason: string; readonly lostCount: number };

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

  /** The engine as of the last commit. */
  load(): StoredEngine {
    const found = this.#database
      .prepare('SELECT snapshot, snapshot_position, is_restored FROM collector_vm WHERE vm = ?')
      .get(this.#vm);
    if (found === undefined) return { kind: 'none' };
    const row = vmRow.parse(found);
    this.#position = row.snapshot_position;
    this.#snapshotChars = row.snapshot?.length ?? 0;
    this.#journalChars = 0;
    const entries = z
      .array(journalRow)
      .parse(
        this.#database
          .prepare(
            'SELECT position, inputs FROM collector_journal WHERE vm = ? AND position > ? ORDER BY position',
          )
          .all(this.#vm, row.snapshot_position),
      );
    for (const { position, inputs } of entries) {
      this.#position = position;
      this.#journalChars += inputs.length;
    }
    const texts = entries.map(({ inputs }) => inputs);
    try {
      const engine = replay(row.snapshot, texts, this.#bounds);
      return { kind: 'engine', engine, isRestored: row.is_restored === 1 };
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const lostCount = countWaiting(row.snapshot) + countTaken(texts);
      return { kind: 'unreadable', reason: error.message, lostCount };
    }
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
           snapshot_position = excluded.snapshot_position, is_restored = 0`,
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

function replay(
  snapshot: string | null,
  journal: readonly string[],
  bounds: EngineBounds,
): SpecifierEngine {
  const engine =
    snapshot === null
      ? new SpecifierEngine(bounds)
      : SpecifierEngine.restore(JSON.parse(snapshot), bounds);
  for (const inputs of journal) {
    for (const input of inputsFromJson(inputs)) engine.apply(input, () => {});
  }
  return engine;
}

/** What reading a state of another program, or a damaged one, ends with; not what the database itself says. */
function isUnreadable(error: unknown): error is Error {
  return (
    error instanceof z.ZodError || error instanceof SyntaxError || error instanceof AssertionError
  );
}

/** The parts of a state that tell how much waits in it, whatever else it holds. */
const waitingState = z.object({
  runs: z.array(
    z.object({
      pending: z.array(z.tuple([z.unknown(), z.array(z.unknown())])).default([]),
      windows: z
        .array(
          z.object({
            isClosed: z.boolean(),
            contents: z.array(
              z.object({
                aggregate: z.object({ count: z.int() }).nullable(),
                measurements: z.array(z.unknown()),
              }),
            ),
          }),
        )
        .default([]),
    }),
  ),
});
const takenInputs = z.array(z.looseObject({ measurements: z.array(z.unknown()).default([]) }));

function countWaiting(snapshot: string | null): number {
  const parsed = waitingState.safeParse(parseJson(snapshot));
  let count = 0;
  for (const { pending, windows } of parsed.data?.runs ?? []) {
    for (const [, measurements] of pending) count += measurements.length;
    for (const { contents } of windows.filter(({ isClosed }) => !isClosed)) {
      for (const { aggregate, measurements } of contents) {
        count += (aggregate?.count ?? 0) + measurements.length;
      }
    }
  }
  return count;
}

function countTaken(journal: readonly string[]): number {
  let count = 0;
  for (const text of journal) {
    for (const { measurements } of takenInputs.safeParse(parseJson(text)).data ?? []) {
      count += measurements.length;
    }
  }
  return count;
}

function parseJson(text: string | null): unknown {
  try {
    return text === null ? null : JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
