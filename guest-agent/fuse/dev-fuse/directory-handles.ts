import type { DirectoryEntry } from '../file-system.ts';

/** A directory's entries as they were when its listing began, so that removing while reading skips none. */
export interface ListedEntry {
  readonly name: Buffer;
  readonly text: string;
  readonly node: number;
  readonly type: number;
  /** "." and "..", which READDIRPLUS must not look up. */
  readonly isDot: boolean;
}

/** Open directories; one more is refused with ENFILE. */
export const directoryHandlesMax = 65_536;

/** The snapshot of each open directory, taken at the first READDIR and at each rewinddir(3). */
export class DirectoryHandles {
  readonly #snapshots = new Map<number, readonly ListedEntry[] | null>();
  #nextHandle = 1;

  /** A new handle, or undefined when `directoryHandlesMax` are open. */
  open(): number | undefined {
    if (this.#snapshots.size >= directoryHandlesMax) return undefined;
    const handle = this.#nextHandle;
    this.#nextHandle += 1;
    this.#snapshots.set(handle, null);
    return handle;
  }

  /** The snapshot of an open directory, or null before its first listing. */
  snapshot(handle: number): readonly ListedEntry[] | null {
    return this.#snapshots.get(handle) ?? null;
  }

  remember(handle: number, entries: readonly ListedEntry[]): void {
    if (this.#snapshots.has(handle)) this.#snapshots.set(handle, entries);
  }

  release(handle: number): void {
    this.#snapshots.delete(handle);
  }
}

const directoryType = 0o040000;

/** "." and ".." and then the entries. ".." gets the directory's own number, which no program relies on. */
export function listedEntries(
  node: number,
  entries: readonly DirectoryEntry[],
): readonly ListedEntry[] {
  return [
    listed({ name: '.', node, type: directoryType }, true),
    listed({ name: '..', node, type: directoryType }, true),
    ...entries.map((entry) => listed(entry, false)),
  ];
}

function listed(entry: DirectoryEntry, isDot: boolean): ListedEntry {
  const { name, node, type } = entry;
  return { name: Buffer.from(name), text: name, node, type, isDot };
}
