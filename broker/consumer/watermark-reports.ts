import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import { controlEntriesMax } from '../../common/wire/control-message.ts';
import type { StoredBy } from '../log/log-cursors.ts';
import { epochKey } from '../stream-key.ts';
import type { Watermark } from './consumer-options.ts';
import type { EpochState } from './epoch-state.ts';

/** Tells upstream; a message that is lost is made good by the next. */
export type SendWatermarks = (by: StoredBy, watermarks: readonly Watermark[]) => void;

/**
 * How far frames are stored, told upstream at most every `reportIntervalMs` and in messages of at most
 * `controlEntriesMax`: by ourselves, and for a relay by the final reader. Only the newest watermark of an epoch waits.
 */
export class WatermarkReports {
  readonly #clock: Clock;
  readonly #options: { readonly storedBy: StoredBy; readonly reportIntervalMs: number };
  readonly #unreported: Set<EpochState>;
  readonly #finals = new Map<string, Watermark>();
  readonly #link: { readonly isLive: () => boolean; readonly send: SendWatermarks };
  #isDue = false;
  #cancel: Cancel = () => {};

  /** `unreported` are the epochs whose watermark the producer has not been told. */
  constructor(
    clock: Clock,
    options: { readonly storedBy: StoredBy; readonly reportIntervalMs: number },
    unreported: Set<EpochState>,
    link: { readonly isLive: () => boolean; readonly send: SendWatermarks },
  ) {
    this.#clock = clock;
    this.#options = options;
    this.#unreported = unreported;
    this.#link = link;
  }

  /** An epoch may have more that is stored. */
  noteStored(state: EpochState): void {
    if (state.watermark <= state.reportedThroughSeq) return;
    this.#unreported.add(state);
    this.#soon();
  }

  noteFinal(watermark: Watermark): void {
    this.#finals.set(epochKey(watermark.stream, watermark.epoch), watermark);
    this.#soon();
  }

  /** What has waited without a connection. */
  catchUp(): void {
    if (this.#unreported.size > 0 && !this.#isDue) this.report();
  }

  /** Tells at once what waits, one message of each kind; more follows. */
  report(): void {
    this.#isDue = false;
    if (!this.#link.isLive()) return;
    this.#reportFinals();
    if (this.#unreported.size === 0) return;
    const states = [...this.#unreported].slice(0, controlEntriesMax);
    const watermarks = states.map((state) => {
      this.#unreported.delete(state);
      state.reportedThroughSeq = state.watermark;
      return { stream: state.stream, epoch: state.epoch, throughSeq: state.watermark };
    });
    this.#link.send(this.#options.storedBy, watermarks);
    const next = this.#unreported.values().next().value;
    if (next !== undefined) this.noteStored(next);
  }

  stop(): void {
    this.#cancel();
  }

  #soon(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    this.#cancel = this.#clock.after(this.#options.reportIntervalMs, () => {
      this.report();
    });
  }

  #reportFinals(): void {
    const finals = [...this.#finals].slice(0, controlEntriesMax);
    if (finals.length === 0) return;
    for (const [key] of finals) this.#finals.delete(key);
    const watermarks = finals.map(([, { stream, epoch, throughSeq }]) => ({
      stream,
      epoch,
      throughSeq,
    }));
    this.#link.send('final-reader', watermarks);
    if (this.#finals.size > 0) this.#soon();
  }
}
