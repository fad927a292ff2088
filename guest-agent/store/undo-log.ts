/**
 * Takes back changes in memory when the transaction that they belong to is rolled back. Every change of state that
 * mirrors the database records its inverse here, at once.
 */
export class UndoLog {
  #inverses: (() => void)[] = [];

  record(inverse: () => void): void {
    this.#inverses.push(inverse);
  }

  /** The transaction is durable: nothing to take back. */
  forget(): void {
    if (this.#inverses.length > 0) this.#inverses = [];
  }

  /** Runs the inverses, newest first. */
  rollBack(): void {
    const inverses = this.#inverses;
    this.#inverses = [];
    for (let index = inverses.length - 1; index >= 0; index -= 1) inverses[index]?.();
  }

  /** Sets `key` in `map`, reversibly. */
  set<Key, Value>(map: Map<Key, Value>, key: Key, value: Value): void {
    const before = map.get(key);
    map.set(key, value);
    this.#inverses.push(() => {
      if (before === undefined) map.delete(key);
      else map.set(key, before);
    });
  }

  /** Deletes `key` from `map`, reversibly. */
  delete<Key, Value>(map: Map<Key, Value>, key: Key): void {
    const before = map.get(key);
    if (before === undefined) return;
    map.delete(key);
    this.#inverses.push(() => {
      map.set(key, before);
    });
  }
}
