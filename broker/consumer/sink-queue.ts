import type { EncodedFrame } from '../../common/wire/frame.ts';
import type { FrameSink } from '../ports.ts';

/** What became of frames that were handed to the sink. */
export interface SinkOutcome {
  stored(frames: readonly EncodedFrame[]): void;
  /** They count as never received. */
  failed(frames: readonly EncodedFrame[], cause: unknown): void;
  /** After either, when their bytes are free again. */
  settled(): void;
}

/**
 * Frames on their way into the sink. Those that arrive in one turn of the event loop, which is one piece of the
 * connection, are stored in one transaction. The caller keeps `bytes` within its bound.
 */
export class SinkQueue {
  readonly #sink: FrameSink;
  readonly #outcome: SinkOutcome;
  readonly #works = new Set<Promise<void>>();
  #pending: EncodedFrame[] = [];
  #bytes = 0;

  constructor(sink: FrameSink, outcome: SinkOutcome) {
    this.#sink = sink;
    this.#outcome = outcome;
  }

  /** Of frames that are not yet durable. */
  get bytes(): number {
    return this.#bytes;
  }

  push(frame: EncodedFrame): void {
    this.#bytes += frame.bytes.length;
    this.#pending.push(frame);
    if (this.#pending.length > 1) return;
    setImmediate(() => {
      this.#flush();
    });
  }

  /** Keeps other work with the sink, which never rejects, until it is done, so that {@link drain} can wait for it. */
  track(work: Promise<void>): void {
    const tracked = work.finally(() => {
      this.#works.delete(tracked);
    });
    this.#works.add(tracked);
  }

  /** Hands over what waits, and resolves when nothing is under way. */
  async drain(): Promise<void> {
    this.#flush();
    await Promise.all(this.#works);
  }

  #flush(): void {
    const frames = this.#pending;
    if (frames.length === 0) return;
    this.#pending = [];
    this.track(this.#store(frames));
  }

  async #store(frames: readonly EncodedFrame[]): Promise<void> {
    try {
      await this.#sink.store(frames);
      this.#outcome.stored(frames);
    } catch (cause) {
      this.#outcome.failed(frames, cause);
    } finally {
      this.#bytes -= frames.reduce((sum, { bytes }) => sum + bytes.length, 0);
      this.#outcome.settled();
    }
  }
}
