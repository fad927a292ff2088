import { writeSync } from 'node:fs';

import type { Log } from '../../../common/runtime/log.ts';
import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import type { ReplySink } from '../../store/store-request.ts';
import type { ReplyToken } from '../file-system.ts';
import { replyHeaderBytes } from '../protocol/reply-message.ts';

/** struct fuse_write_out behind the header. */
const writeReplyBytes = replyHeaderBytes + 8;

/**
 * Answers deferred requests from the store thread, through the same descriptor that the fuse thread reads: the kernel
 * matches replies by their token, whichever thread writes them. Allocates nothing. Never throws; a caller that was
 * killed meanwhile needs no answer, and a connection that has ended is the fuse thread's to report.
 */
export class DevFuseReplySink implements ReplySink {
  readonly #descriptor: number;
  readonly #log: Log;
  readonly #bytes: Buffer;
  readonly #words: Uint32Array;
  readonly #longs: BigUint64Array;

  constructor(descriptor: number, log: Log) {
    this.#descriptor = descriptor;
    this.#log = log;
    const memory = new ArrayBuffer(writeReplyBytes);
    this.#bytes = Buffer.from(memory);
    this.#words = new Uint32Array(memory);
    this.#longs = new BigUint64Array(memory);
  }

  reply(token: ReplyToken, result: number, writtenBytes: number | null): void {
    const isWritten = result >= 0 && writtenBytes !== null;
    const byteCount = isWritten ? writeReplyBytes : replyHeaderBytes;
    this.#words[0] = byteCount;
    this.#words[1] = Math.min(result, 0);
    this.#longs[1] = token;
    this.#words[4] = writtenBytes ?? 0;
    this.#words[5] = 0;
    try {
      writeSync(this.#descriptor, this.#bytes, 0, byteCount);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === 'ENOENT' || code === 'ENODEV' || code === 'ECONNABORTED') return;
      this.#log.error('fuse-reply-refused', { code, byteCount });
    }
  }
}
