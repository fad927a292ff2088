import {
  creditBytesMax,
  type DownstreamMessage,
  type QueryMessage,
} from '../../common/wire/control-message.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { FrameLog, LoggedFrame, LostRange } from '../log/frame-log.ts';
import type { SeqRange } from '../range-set.ts';

export interface QueriedRange extends SeqRange {
  readonly stream: StreamId;
  readonly epoch: Epoch;
}

interface Query extends QueriedRange {
  readonly request: string;
  nextSeq: number;
  creditBytes: number;
  isSending: boolean;
}

/** Where the answers go. */
export interface RangeAnswers {
  /** Resolves when the frames have left; rejects when they could not. */
  publish(request: string, frames: readonly LoggedFrame[]): Promise<void>;
  /** All that there is of the range was sent; `lost` are the parts that the log had to give up. */
  end(request: string, queried: QueriedRange, lost: readonly LostRange[]): void;
  notSent(cause: unknown): void;
}

/** Codes of a `refused` message. */
export type QueryRefusal = Extract<DownstreamMessage, { readonly kind: 'refused' }>['code'];

/** The queries of one session of a consumer: at most `queriesMax`, each answered as far as its credit goes. */
export class RangeQueries {
  readonly #streamLog: FrameLog;
  readonly #options: { readonly queriesMax: number; readonly batchBytesMax: number };
  readonly #answers: RangeAnswers;
  readonly #queries = new Map<string, Query>();

  constructor(
    streamLog: FrameLog,
    options: { readonly queriesMax: number; readonly batchBytesMax: number },
    answers: RangeAnswers,
  ) {
    this.#streamLog = streamLog;
    this.#options = options;
    this.#answers = answers;
  }

  /** A repetition of one that is under way changes nothing. Returns why it is refused; undefined when it is not. */
  add(message: QueryMessage): QueryRefusal | undefined {
    const { request, stream, epoch, range, creditBytes } = message;
    if (this.#queries.size >= this.#options.queriesMax) return 'too-many-requests';
    if (this.#queries.has(request)) return undefined;
    const query = {
      request,
      stream,
      epoch,
      ...range,
      nextSeq: range.fromSeq,
      creditBytes,
      isSending: false,
    };
    this.#queries.set(request, query);
    this.#pump(query);
    return undefined;
  }

  credit(request: string, bytes: number): void {
    const query = this.#queries.get(request);
    if (query === undefined) return;
    query.creditBytes = Math.min(query.creditBytes + bytes, creditBytesMax);
    this.#pump(query);
  }

  cancel(request: string): void {
    this.#queries.delete(request);
  }

  /** The session is over: nothing more is sent for it. */
  clear(): void {
    this.#queries.clear();
  }

  #pump(query: Query): void {
    if (query.isSending) return;
    query.isSending = true;
    this.#sendRange(query).catch((cause: unknown) => {
      // The consumer's request time-out asks again for what did not arrive.
      this.#queries.delete(query.request);
      this.#answers.notSent(cause);
    });
  }

  async #sendRange(query: Query): Promise<void> {
    while (this.#queries.get(query.request) === query && query.creditBytes > 0) {
      const range = { fromSeq: query.nextSeq, throughSeq: query.throughSeq };
      const bytesMax = Math.min(query.creditBytes, this.#options.batchBytesMax);
      const frames = this.#streamLog.read(query.stream, query.epoch, range, bytesMax);
      const last = frames.at(-1);
      if (last === undefined) {
        this.#queries.delete(query.request);
        const lost = this.#streamLog.lostIn(query.stream, query.epoch, query);
        this.#answers.end(query.request, query, lost);
        return;
      }
      query.nextSeq = last.seq + 1;
      query.creditBytes -= frames.reduce((sum, { bytes }) => sum + bytes.length, 0);
      // Awaiting lets live frames of this and other relations go in between.
      await this.#answers.publish(query.request, frames);
    }
    query.isSending = false;
  }
}
