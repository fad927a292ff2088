import type { Duplex } from 'node:stream';

import type { Cancel, Clock } from '../runtime/clock.ts';
import { encodeFrame, FrameDecoder, type FrameDamage } from './frame-codec.ts';
import { MessageCodec } from './message-codec.ts';
import type { ChannelMessage } from './message.ts';
import { channelTimings, type ChannelTimings } from './protocol.ts';

/** Why a connection is over. `silent`: half open, noticed by {@link ChannelTimings.silenceMaxMs}. */
export type CloseReason =
  | 'closed-here'
  | 'closed-by-peer'
  | 'failed'
  | 'silent'
  | 'malformed'
  | 'send-buffer-full';

export interface ConnectionHandler {
  message(message: ChannelMessage, session: number): void;
  /** Bytes that were no frame. */
  damage(damage: FrameDamage): void;
  /** Once, at the end; nothing comes after it. `error` where there was one. */
  closed(reason: CloseReason, error: Error | null): void;
}

/**
 * What may wait to be written. No side needs more: answers are one for each request, notifications, watermarks and
 * pings are skipped while bytes wait. A peer that makes it overflow does not read, and is disconnected.
 */
const sendBufferBytesMax = 48 * 1_048_576;

/**
 * Messages over a byte stream: frames them, finds them again, sends pings and notices a peer that fell silent.
 * Owns the stream and destroys it at the end, whichever side ends it.
 */
export class MessageConnection {
  readonly #clock: Clock;
  readonly #stream: Duplex;
  readonly #handler: ConnectionHandler;
  readonly #timings: ChannelTimings;
  readonly #codec = new MessageCodec();
  readonly #decoder: FrameDecoder;
  readonly #cancelTimer: Cancel;
  #heardAtMs: number;
  #sentAtMs: number;
  #checkedAtMs: number;
  #isClosed = false;

  constructor(
    deps: { readonly clock: Clock },
    stream: Duplex,
    handler: ConnectionHandler,
    timings: ChannelTimings = channelTimings,
  ) {
    this.#clock = deps.clock;
    this.#stream = stream;
    this.#handler = handler;
    this.#timings = timings;
    this.#decoder = new FrameDecoder({
      frame: ({ session, payload }) => {
        this.#receive(session, payload);
      },
      damage: (damage) => {
        if (!this.#isClosed) handler.damage(damage);
      },
    });
    this.#heardAtMs = this.#clock.monotonicMs();
    this.#sentAtMs = this.#heardAtMs;
    this.#checkedAtMs = this.#heardAtMs;
    this.#cancelTimer = this.#clock.every(timings.keepAliveIntervalMs / 3, () => {
      this.#keepAlive();
    });
    stream.on('data', (chunk: Buffer) => {
      if (!this.#isClosed) this.#decoder.push(chunk);
    });
    stream.on('error', (error) => {
      this.#close('failed', error);
    });
    stream.on('close', () => {
      this.#close('closed-by-peer', null);
    });
    stream.on('end', () => {
      this.#close('closed-by-peer', null);
    });
  }

  /** The session that pings carry; 0 before a hello. */
  session = 0;

  /** True while earlier bytes wait for the peer: what can wait or be merged should. */
  get isCongested(): boolean {
    return this.#stream.writableLength > 0;
  }

  /** Writes a message of `session` (by default the current one). Nothing happens once closed. */
  send(message: ChannelMessage, session: number = this.session): void {
    if (this.#isClosed) return;
    const frame = encodeFrame(session, this.#codec.encode(message));
    if (this.#stream.writableLength + frame.byteLength > sendBufferBytesMax) {
      this.#close('send-buffer-full', null);
      return;
    }
    this.#stream.write(frame);
    this.#sentAtMs = this.#clock.monotonicMs();
  }

  /** Ends the connection at once; what waits to be written is dropped. */
  close(): void {
    this.#close('closed-here', null);
  }

  #receive(session: number, payload: Buffer): void {
    if (this.#isClosed) return;
    this.#heardAtMs = this.#clock.monotonicMs();
    const decoding = this.#codec.decode(payload);
    if (decoding.outcome === 'malformed') this.#close('malformed', new Error(decoding.problem));
    else if (decoding.outcome === 'message') this.#handler.message(decoding.message, session);
  }

  #keepAlive(): void {
    const nowMs = this.#clock.monotonicMs();
    // A check that comes this late was held up with everything else here: what the peer sent is still unread.
    const wasHeldUp = nowMs - this.#checkedAtMs >= this.#timings.silenceMaxMs / 2;
    this.#checkedAtMs = nowMs;
    if (wasHeldUp) this.#heardAtMs = nowMs;
    if (nowMs - this.#heardAtMs >= this.#timings.silenceMaxMs) {
      this.#close('silent', null);
    } else if (nowMs - this.#sentAtMs >= this.#timings.keepAliveIntervalMs && !this.isCongested) {
      this.send({ kind: 'ping' });
    }
  }

  #close(reason: CloseReason, error: Error | null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelTimer();
    this.#stream.destroy();
    this.#handler.closed(reason, error);
  }
}
