import type { ClockStep } from '../../common/channel/message.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { BootClock } from './boot-clock.ts';

/** How often the clocks are compared: a step is noticed at most this late. */
const checkIntervalMs = 500;
/**
 * Wall and monotonic time may drift apart by slewing, 500 ppm at most with adjtime(2), and each reading is uncertain
 * by up to 1.5 ms; a larger difference in one interval is a step.
 */
const stepMinUs = 5_000;
/** A change of boot time against monotonic time is sleep; boot time is read in steps of 10 ms. */
const bootTimeResolutionUs = 20_000;

interface Reading {
  readonly wallUs: number;
  readonly monotonicUs: number;
}

/**
 * Notices when somebody sets the wall clock, by comparing it with the monotonic clock; and tells that from sleep,
 * during which the monotonic clock stands and the boot time and the wall clock go on.
 */
export class ClockWatcher {
  readonly #clock: Clock;
  readonly #bootClock: BootClock;
  readonly #report: (step: ClockStep) => void;
  #last: Reading | undefined;
  /** Boot time less monotonic time: changes with sleep alone, so it is read again only after a jump. */
  #bootOffsetUs = 0;
  #cancel: Cancel = () => {};

  constructor(
    deps: { readonly clock: Clock; readonly bootClock: BootClock },
    report: (step: ClockStep) => void,
  ) {
    this.#clock = deps.clock;
    this.#bootClock = deps.bootClock;
    this.#report = report;
  }

  /** Begins to compare; does nothing when it does already. */
  start(): void {
    if (this.#last !== undefined) return;
    this.#last = this.#read();
    this.#bootOffsetUs = this.#bootClock.bootTimeUs() - this.#last.monotonicUs;
    this.#cancel = this.#clock.every(checkIntervalMs, () => {
      this.check();
    });
  }

  stop(): void {
    this.#cancel();
    this.#last = undefined;
  }

  /** Compares now instead of at the next interval: before the clock is read for something that matters. */
  check(): void {
    const before = this.#last;
    if (before === undefined) return;
    const now = this.#read();
    this.#last = now;
    const elapsedUs = now.monotonicUs - before.monotonicUs;
    const wallJumpUs = now.wallUs - before.wallUs - elapsedUs;
    if (Math.abs(wallJumpUs) < stepMinUs) return;

    const bootTimeUs = this.#bootClock.bootTimeUs();
    const sleptUs = bootTimeUs - now.monotonicUs - this.#bootOffsetUs;
    this.#bootOffsetUs += sleptUs;
    const isSleep = Math.abs(wallJumpUs - sleptUs) <= bootTimeResolutionUs;
    const awakeUs = isSleep || sleptUs <= bootTimeResolutionUs ? 0 : sleptUs;
    this.#report({
      kind: 'clock-step',
      cause: isSleep && sleptUs > bootTimeResolutionUs ? 'resumed' : 'stepped',
      bootId: this.#bootClock.bootId,
      bootTimeUs,
      wallBeforeUs: before.wallUs + Math.round(elapsedUs + awakeUs),
      wallAfterUs: now.wallUs,
      noticedWithinUs: Math.max(0, Math.ceil(elapsedUs + Math.max(0, sleptUs))),
    });
  }

  #read(): Reading {
    return { wallUs: this.#clock.wallUs(), monotonicUs: this.#clock.monotonicMs() * 1_000 };
  }
}
