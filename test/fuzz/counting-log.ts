import assert from 'node:assert';

import { createLog, type Log } from '../../common/runtime/log.ts';

/** Of one line, with the fields that every line has. */
const lineCharsMax = 4_096;
/** What a process may write at once, and in each second: some events, each at its own bounded rate. */
const linesAtOnceMax = 2_000;
const linesPerSecondMax = 100;

/** A log as a process has it, of which only the number and the length of lines are looked at. */
export class CountingLog {
  readonly log: Log;
  readonly #startedAtMs = performance.now();
  #lineCount = 0;
  #longest = '';

  constructor() {
    this.log = createLog('fuzz', 'info', {
      write: (line) => {
        this.#lineCount += 1;
        if (line.length > this.#longest.length) this.#longest = line;
      },
    });
  }

  /** Asserts that refusals were logged at a bounded rate, in lines of bounded length. */
  check(): void {
    const seconds = (performance.now() - this.#startedAtMs) / 1_000;
    const linesMax = linesAtOnceMax + linesPerSecondMax * seconds;
    assert(this.#lineCount <= linesMax, `${this.#lineCount} lines in ${seconds.toFixed(0)} s`);
    const { length } = this.#longest;
    assert(length <= lineCharsMax, `a line of ${length}: ${this.#longest.slice(0, 200)}`);
  }
}
