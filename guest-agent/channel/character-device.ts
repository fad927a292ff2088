import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { Duplex } from 'node:stream';

import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import { systemErrorCode } from '../../common/runtime/operating-error.ts';

const readBytesMax = 65_536;
/** Reads a turn, so that a fast peer does not keep the event loop. */
const readsPerTurnMax = 16;
/** The device can't be waited for (epoll refuses it through libuv), so it is polled: quickly after activity ... */
const activePollMs = 1;
const activeForMs = 100;
/** ... and slowly when idle, which costs less than 0.2 % of a core. */
const idlePollMs = 20;

/**
 * A character device as a stream: a virtio-serial port, a serial line, a terminal in raw mode. Reads and writes never
 * block. With no host at the other end a virtio port reads as end of file; that is "nothing yet" here.
 */
export class CharacterDevice extends Duplex {
  readonly #clock: Clock;
  readonly #fd: number;
  #cancelTimer: Cancel = () => {};
  #activeUntilMs = 0;
  #wantsRead = false;
  #unwritten: Buffer | undefined;
  #onWritten: ((error?: Error | null) => void) | undefined;

  /** Opens the device. @throws the system's error. */
  constructor(deps: { readonly clock: Clock }, path: string) {
    super({ allowHalfOpen: true, highWaterMark: 262_144 });
    this.#clock = deps.clock;
    this.#fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY);
    this.#schedule();
  }

  override _read(): void {
    this.#wantsRead = true;
  }

  override _write(
    chunk: Buffer,
    _encoding: BufferEncoding,
    callback: (error?: Error | null) => void,
  ): void {
    this.#unwritten = chunk;
    this.#onWritten = callback;
    this.#activeUntilMs = this.#clock.monotonicMs() + activeForMs;
    try {
      this.#writeSome();
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    // The answer to what was written is awaited at the quick pace.
    this.#cancelTimer();
    this.#schedule();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#cancelTimer();
    closeSync(this.#fd);
    callback(error);
  }

  #schedule(): void {
    if (this.destroyed) return;
    const isActive = this.#clock.monotonicMs() < this.#activeUntilMs;
    this.#cancelTimer = this.#clock.after(isActive ? activePollMs : idlePollMs, () => {
      this.#poll();
    });
  }

  #poll(): void {
    try {
      this.#writeSome();
      this.#readSome();
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    }
    this.#schedule();
  }

  #readSome(): void {
    for (let turn = 0; turn < readsPerTurnMax; turn += 1) {
      if (!this.#wantsRead) return;
      const chunk = Buffer.allocUnsafe(readBytesMax);
      const byteCount = ignoringAgain(() => readSync(this.#fd, chunk, 0, readBytesMax, null));
      if (byteCount === 0) return;
      this.#activeUntilMs = this.#clock.monotonicMs() + activeForMs;
      this.#wantsRead = false;
      if (this.push(Buffer.from(chunk.subarray(0, byteCount)))) this.#wantsRead = true;
    }
  }

  #writeSome(): void {
    const chunk = this.#unwritten;
    if (chunk === undefined) return;
    const byteCount = ignoringAgain(() => writeSync(this.#fd, chunk, 0, chunk.byteLength));
    if (byteCount < chunk.byteLength) {
      this.#unwritten = chunk.subarray(byteCount);
      return;
    }
    this.#unwritten = undefined;
    const onWritten = this.#onWritten;
    this.#onWritten = undefined;
    onWritten?.();
  }
}

/** The call's result, or 0 when the device has nothing or no room now. */
function ignoringAgain(call: () => number): number {
  try {
    return call();
  } catch (error) {
    if (systemErrorCode(error) === 'EAGAIN') return 0;
    throw error;
  }
}
