import { writeFile } from 'node:fs/promises';

import type { Clock } from '../../common/runtime/clock.ts';

/** An application in a VM: saves 1, 2, 3, ... into one file at a fixed rate, as any program would. */
export class SavingApplication {
  readonly #clock: Clock;
  readonly #path: string;
  readonly #intervalMs: number;
  readonly #stopping = new AbortController();
  #saved = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(deps: { readonly clock: Clock }, path: string, ratePerSecond: number) {
    this.#clock = deps.clock;
    this.#path = path;
    this.#intervalMs = 1_000 / ratePerSecond;
  }

  /** Saves whose close returned: numbers 1 to this. */
  get saved(): number {
    return this.#saved;
  }

  start(): void {
    this.#running = this.#run();
  }

  /**
   * Resolves when the save under way is over.
   * @throws the system's error of a save that failed
   */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const startedAtMs = this.#clock.monotonicMs();
    while (!signal.aborted) {
      await writeFile(this.#path, `${this.#saved + 1}\n`);
      this.#saved += 1;
      const dueMs = startedAtMs + this.#saved * this.#intervalMs;
      const waitMs = dueMs - this.#clock.monotonicMs();
      if (waitMs > 0) await this.#clock.sleep(waitMs, signal).catch(() => {});
    }
  }
}
