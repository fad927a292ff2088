import { writeFile } from 'node:fs/promises';

/** Saves numbers as fast as it can, until it is stopped; a save that fails is no acknowledged one. */
export class SavingWriter {
  readonly acknowledged: number[] = [];
  readonly #path: string;
  readonly #first: number;
  #isStopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(path: string, first: number) {
    this.#path = path;
    this.#first = first;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let value = this.#first; !this.#isStopped; value += 1) {
      try {
        await writeFile(this.#path, String(value));
        this.acknowledged.push(value);
      } catch {
        // The agent died under this save: the application would try the next one.
      }
    }
  }
}
