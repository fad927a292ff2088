import type { Cancel, Clock } from '../../common/runtime/clock.ts';

/** How long an agent may be silent by default; a machine under heavy load must not take a healthy one for hung. */
export const unresponsiveMaxMsDefault = 30_000;

/** Beats in `unresponsiveMaxMs`: one to ask, the others to wait for the answer. */
const beats = 5;
/** A beat that comes so late says that we did not run (a suspended machine, a stopped supervisor), not that the agent did not. */
const lateBeatRatio = 2;

/**
 * Notices an agent that lives but does not answer: stopped, or in an endless loop. It counts beats of our own timer that find
 * no answer rather than time, so that nothing which stops both of us (suspend, a frozen group) ends a healthy agent.
 *
 *   beat: ask --> beat, beat, beat, beat without an answer: hung        an answer begins anew
 */
export class AgentWatch {
  readonly #clock: Clock;
  readonly #options: {
    readonly unresponsiveMaxMs: number;
    /** Asks the agent; `answered` is to be called for its answer. */
    readonly ask: () => void;
    readonly onHung: () => void;
  };
  #cancel: Cancel = () => {};
  #isAsked = false;
  #missedBeats = 0;
  #beatAtMs = 0;

  constructor(
    deps: { readonly clock: Clock },
    options: {
      readonly unresponsiveMaxMs: number;
      readonly ask: () => void;
      readonly onHung: () => void;
    },
  ) {
    this.#clock = deps.clock;
    this.#options = options;
  }

  start(): void {
    const intervalMs = this.#options.unresponsiveMaxMs / beats;
    this.#beatAtMs = this.#clock.monotonicMs();
    this.#cancel = this.#clock.every(intervalMs, () => {
      this.#beat(intervalMs);
    });
  }

  /** The agent has answered. */
  answered(): void {
    this.#isAsked = false;
    this.#missedBeats = 0;
  }

  stop(): void {
    this.#cancel();
  }

  #beat(intervalMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    const isLate = nowMs - this.#beatAtMs >= lateBeatRatio * intervalMs;
    this.#beatAtMs = nowMs;
    if (!this.#isAsked) {
      // One question at a time: they would pile up in the pipe of an agent that does not read.
      this.#isAsked = true;
      this.#options.ask();
      return;
    }
    if (isLate) return;
    this.#missedBeats += 1;
    if (this.#missedBeats < beats - 1) return;
    this.stop();
    this.#options.onHung();
  }
}
