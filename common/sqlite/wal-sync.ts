import { close, fdatasync, openSync } from 'node:fs';

/**
 * Makes committed transactions survive a power cut without holding up the thread that commits: SQLite in WAL mode with
 * `synchronous=NORMAL` appends a commit to the WAL file without syncing it, and fdatasync on that file, from any
 * descriptor, makes everything appended before durable. Calls that come while one runs share the next.
 */
export class WalSync {
  readonly #walPath: string;
  #descriptor: number | undefined;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(databasePath: string) {
    this.#walPath = `${databasePath}-wal`;
  }

  /** Resolves when everything committed before the call is durable; rejects with the system's error. */
  sync(): Promise<void> {
    if (this.#running === undefined) return this.#run();
    this.#next ??= this.#running.then(
      () => this.#runNext(),
      () => this.#runNext(),
    );
    return this.#next;
  }

  /** Call when no sync is under way. */
  async close(): Promise<void> {
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    if (descriptor === undefined) return;
    await new Promise<void>((resolve) => {
      close(descriptor, () => {
        resolve();
      });
    });
  }

  #runNext(): Promise<void> {
    this.#next = undefined;
    return this.#run();
  }

  #run(): Promise<void> {
    // The WAL file appears with the first commit and stays the same while the database is open.
    this.#descriptor ??= openSync(this.#walPath, 'r+');
    const descriptor = this.#descriptor;
    const running = new Promise<void>((resolve, reject) => {
      fdatasync(descriptor, (error) => {
        if (this.#running === running) this.#running = undefined;
        if (error === null) resolve();
        else reject(error);
      });
    });
    this.#running = running;
    return running;
  }
}
