import { readSync, writeSync } from 'node:fs';

import type { Log } from '../../../common/runtime/log.ts';
import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import type { StageCounters } from '../../../common/runtime/stage-counters.ts';
import { errno } from '../errno.ts';
import type { FileSystem } from '../file-system.ts';
import { initFlag2, type Negotiation, writeBytesMax } from '../protocol/init.ts';
import {
  encodeNotifyIncrementEpoch,
  encodeNotifyResend,
  epochMinorMin,
} from '../protocol/notify.ts';
import { ReplyMessage } from '../protocol/reply-message.ts';
import { RequestMessage } from '../protocol/request-message.ts';
import { DirectoryHandles } from './directory-handles.ts';
import { operationTable } from './operation-table.ts';
import type { RequestActivity } from './request-activity.ts';
import { SessionState } from './session-state.ts';

/** A session that takes over a connection from an agent that died. */
export interface Takeover {
  readonly negotiation: Negotiation;
  /** How many agents this connection has had before, below `incarnationsMax`. */
  readonly incarnation: number;
}

export interface DevFuseSessionOptions {
  /** An open /dev/fuse whose connection is mounted, or about to be. Blocking; stays the caller's to close. */
  readonly descriptor: number;
  readonly fileSystem: FileSystem;
  readonly log: Log;
  /** accepted: requests read; forwarded: replied here; dropped: the caller had gone; failed: malformed or thrown. */
  readonly counters: StageCounters;
  /** Told of each request's beginning and end. */
  readonly activity?: RequestActivity;
  /** Absent on a connection that has had no agent yet: the first request is INIT. */
  readonly takeover?: Takeover;
  /** Bits of initFlag2 not to take though the kernel offers them: behaves as on an older kernel. */
  readonly declined2?: number;
  /** Called once, before the reply to INIT goes out: the mount can be used when it has. */
  readonly onNegotiated?: (negotiation: Negotiation) => void;
}

/** Why a session ended: `umount`, or an abort through /sys/fs/fuse/connections. */
export type SessionEnd = 'unmounted' | 'aborted';

/** A READ can't ask for more than a WRITE may carry; listings are smaller. */
const replyBodyBytesMax = writeBytesMax;
/** The header and struct fuse_write_in in front of the largest WRITE, rounded up to a page. */
const requestBytesMax = writeBytesMax + 4096;
/** How long to wait where a non-blocking descriptor has no request; ours are blocking. */
const emptyWaitMs = 1;

/**
 * Serves the connection of `descriptor` until it ends: reads a request, lets the file system settle and act, replies
 * unless the store thread will. Blocks its thread, so it runs on one of its own. Throws only for an unusable
 * descriptor. Whatever the kernel sends, and whatever one operation throws (EIO, and an error event), the loop goes on.
 */
export function runDevFuseSession(options: DevFuseSessionOptions): SessionEnd {
  return new DevFuseSession(options).run();
}

class DevFuseSession {
  readonly #options: DevFuseSessionOptions;
  readonly #state: SessionState;
  readonly #request = new RequestMessage(Buffer.from(new ArrayBuffer(requestBytesMax)));
  readonly #reply = new ReplyMessage(replyBodyBytesMax);
  /** Whether the operation of the present request did. */
  #hasThrown = false;

  constructor(options: DevFuseSessionOptions) {
    this.#options = options;
    this.#state = new SessionState({
      fileSystem: options.fileSystem,
      reply: this.#reply,
      directories: new DirectoryHandles(),
      incarnation: options.takeover?.incarnation ?? 0,
      negotiation: options.takeover?.negotiation,
      declined2: options.declined2 ?? 0,
    });
  }

  run(): SessionEnd {
    const { descriptor, counters, takeover, activity } = this.#options;
    if (takeover !== undefined) this.#resume(takeover.negotiation);
    const request = this.#request;
    for (;;) {
      let byteCount: number;
      try {
        byteCount = readSync(descriptor, request.bytes, 0, requestBytesMax, null);
      } catch (error) {
        const end = this.#readFailed(error);
        if (end !== undefined) return end;
        continue;
      }
      counters.accepted += 1;
      activity?.begin();
      if (request.receive(byteCount)) this.#serve();
      else counters.failed += 1;
      activity?.end();
    }
  }

  /** Makes the kernel forget names that died with the last agent and deliver again what it left unanswered. */
  #resume(negotiation: Negotiation): void {
    const { descriptor } = this.#options;
    if (negotiation.kernelMinor >= epochMinorMin) {
      writeSync(descriptor, encodeNotifyIncrementEpoch());
    }
    if ((negotiation.flags2 & initFlag2.resend) !== 0) writeSync(descriptor, encodeNotifyResend());
  }

  #serve(): void {
    this.#hasThrown = false;
    const hadNegotiated = this.#state.negotiation !== undefined;
    const byteCount = this.#answer();
    if (!hadNegotiated && this.#state.negotiation !== undefined) {
      this.#options.onNegotiated?.(this.#state.negotiation);
    }
    if (byteCount > 0) this.#send(byteCount);
    // The store thread answers it, or it wants no answer.
    else this.#options.counters.forwarded += 1;
  }

  #answer(): number {
    const request = this.#request;
    const operation = operationTable[request.opcode];
    if (operation === undefined) return this.#reply.status(request, -errno.ENOSYS);
    try {
      this.#options.fileSystem.settle();
      return operation(this.#state, request);
    } catch (error) {
      this.#hasThrown = true;
      this.#options.log.error('fuse-request-failed', { opcode: request.opcode, error });
      return this.#reply.status(request, -errno.EIO);
    }
  }

  #send(byteCount: number): void {
    const { descriptor, counters, log } = this.#options;
    try {
      writeSync(descriptor, this.#reply.bytes, 0, byteCount);
      if (this.#hasThrown) counters.failed += 1;
      else counters.forwarded += 1;
    } catch (error) {
      counters.dropped += 1;
      const code = systemErrorCode(error);
      // ENOENT: the caller was killed meanwhile. ENODEV, ECONNABORTED: the next read says so too.
      if (code === 'ENOENT' || code === 'ENODEV' || code === 'ECONNABORTED') return;
      log.error('fuse-reply-refused', { opcode: this.#request.opcode, code, byteCount });
    }
  }

  /** ENOENT, EINTR: that request went away. Anything not known is thrown on. */
  #readFailed(error: unknown): SessionEnd | undefined {
    const code = systemErrorCode(error);
    if (code === 'ENODEV') return 'unmounted';
    if (code === 'ECONNABORTED') return 'aborted';
    if (code === 'ENOENT' || code === 'EINTR') return undefined;
    if (code !== 'EAGAIN') throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, emptyWaitMs);
    return undefined;
  }
}
