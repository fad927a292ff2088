import { writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { systemErrorCode } from '../../common/runtime/operating-error.ts';

/** Saves numbers as fast as it can, or one every `pauseMs`, until it is stopped; a save that fails is no acknowledged one. */
export class SavingWriter {
  readonly acknowledged: number[] = [];
  /** Errors that saves ended with. */
  readonly refused = new Set<string | undefined>();
  readonly #path: string;
  readonly #first: number;
  readonly #pauseMs: number;
  #isStopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(path: string, first: number, pauseMs = 0) {
    this.#path = path;
    this.#first = first;
    this.#pauseMs = pauseMs;
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
      } catch (error) {
        this.refused.add(systemErrorCode(error));
        // The agent died under this save: the application would try the next one.
      }
      if (this.#pauseMs > 0) await delay(this.#pauseMs);
    }
  }
}
