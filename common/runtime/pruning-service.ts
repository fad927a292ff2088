import type { Cancel, Clock } from './clock.ts';
import type { Log } from './log.ts';
import type { Service } from './service.ts';

export interface PruningOptions {
  readonly name: string;
  /** Between looks, while there is nothing to remove. */
  readonly intervalMs: number;
  /** One pass, short enough to hold up nothing; true when there is more to remove. */
  readonly prune: () => boolean;
}

/** Between passes while there is more to remove: what waits for the thread goes first. */
const nextPassDelayMs = 1;

/** Removes what is too old or too much, pass after pass, for as long as there is something. A pass that fails is logged. */
export class PruningService implements Service {
  readonly name: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: PruningOptions;
  #cancel: Cancel = () => {};

  constructor(deps: { readonly clock: Clock; readonly log: Log }, options: PruningOptions) {
    this.name = options.name;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
  }

  start(): Promise<void> {
    this.#schedule(this.#options.intervalMs);
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#cancel();
    return Promise.resolve();
  }

  #schedule(delayMs: number): void {
    this.#cancel = this.#clock.after(delayMs, () => {
      this.#schedule(this.#hasMore() ? nextPassDelayMs : this.#options.intervalMs);
    });
  }

  #hasMore(): boolean {
    try {
      return this.#options.prune();
    } catch (cause) {
      this.#log.error('pruning-failed', { what: this.name, cause: String(cause) });
      return false;
    }
  }
}
