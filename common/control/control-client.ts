import { request as httpRequest, type IncomingMessage } from 'node:http';

import type { z } from 'zod';

import { formatProblem } from '../config/load-config.ts';
import { OperatingError, systemErrorCode } from '../runtime/operating-error.ts';
import {
  errorAnswerSchema,
  processAnswerSchema,
  processPath,
  type ProcessAnswer,
} from './control-answer.ts';

export type ControlErrorCode =
  /** Nobody serves the socket; the message names the command that starts it. */
  | 'not-running'
  /** The socket belongs to another user. */
  | 'permission-denied'
  /** The peer answered with an error of its own: `peerCode`, `problems`. */
  | 'refused'
  /** The connection broke, or nothing came in time. Retryable. */
  | 'interrupted'
  /** The answer has a shape that this program doesn't know: programs of different versions. */
  | 'unexpected-answer';

export class ControlError extends OperatingError<ControlErrorCode> {
  override readonly name = 'ControlError';
  /** With `refused`: the peer's own code, such as `vm-unknown`. */
  readonly peerCode: string | null;

  constructor(
    code: ControlErrorCode,
    message: string,
    options: { readonly peerCode?: string; readonly cause?: unknown } = {},
  ) {
    const retryable = code === 'interrupted' || code === 'not-running';
    super(code, message, { retryable, cause: options.cause });
    this.peerCode = options.peerCode ?? null;
  }
}

export interface ControlClientOptions {
  readonly socketPath: string;
  /** What is expected there, for messages: `the host collector`. */
  readonly peer: string;
  /** What a person types to start it: `isobar up`. */
  readonly startCommand: string;
  /** Longest silence while an answer is awaited. Streams may be silent for ever. */
  readonly silenceMaxMs?: number;
}

export type ControlMethod = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

const silenceMaxMsDefault = 10_000;
/** An answer that is no stream is collected in memory; a larger one is refused as `unexpected-answer`. */
const answerBytesMax = 64 * 1_024 * 1_024;
/** One line of a stream. */
const lineCharsMax = 16 * 1_024 * 1_024;

/** Talks HTTP to a ControlServer. Every answer is checked against the schema that the caller expects. */
export class ControlClient {
  readonly #options: ControlClientOptions;

  constructor(options: ControlClientOptions) {
    this.#options = options;
  }

  /** @throws ControlError */
  get<Schema extends z.ZodType>(path: string, schema: Schema): Promise<z.output<Schema>> {
    return this.call('GET', path, undefined, schema);
  }

  /**
   * One request with `body` as JSON (none when undefined).
   * @throws ControlError
   */
  async call<Schema extends z.ZodType>(
    method: ControlMethod,
    path: string,
    body: unknown,
    schema: Schema,
  ): Promise<z.output<Schema>> {
    const response = await this.#request(method, path, body, this.#silenceMaxMs());
    const text = await this.#collect(response);
    return this.#parse(text === '' ? 'null' : text, schema);
  }

  /** Who serves the socket. */
  process(): Promise<ProcessAnswer> {
    return this.get(processPath, processAnswerSchema);
  }

  /**
   * The lines of one NDJSON answer as they come; empty lines (heartbeats) are skipped. Ends when the peer ends it or
   * `signal` aborts. `onHead` gets the answer's headers before the first line.
   * @throws ControlError `interrupted` when the connection breaks
   */
  async *stream<Schema extends z.ZodType>(
    path: string,
    schema: Schema,
    signal?: AbortSignal,
    onHead?: (headers: IncomingMessage['headers']) => void,
  ): AsyncGenerator<z.output<Schema>, void> {
    const response = await this.#request('GET', path, undefined, 0, signal);
    onHead?.(response.headers);
    const abort = (): void => {
      response.destroy();
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      for await (const line of linesOf(response)) yield this.#parse(line, schema);
    } catch (error) {
      if (signal?.aborted === true) return;
      throw error instanceof ControlError ? error : this.#connectionError(error);
    } finally {
      signal?.removeEventListener('abort', abort);
      response.destroy();
    }
  }

  #silenceMaxMs(): number {
    return this.#options.silenceMaxMs ?? silenceMaxMsDefault;
  }

  /** Resolves with the head of a successful answer. */
  async #request(
    method: ControlMethod,
    path: string,
    body: unknown,
    silenceMaxMs: number,
    signal?: AbortSignal,
  ): Promise<IncomingMessage> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = httpRequest(
        {
          socketPath: this.#options.socketPath,
          method,
          path,
          headers: payload === undefined ? {} : { 'content-type': 'application/json' },
          timeout: silenceMaxMs,
          // A connection of its own: a kept one may lead to a server that was restarted since.
          agent: false,
          ...(signal === undefined ? {} : { signal }),
        },
        resolve,
      );
      request.on('timeout', () => {
        request.destroy(
          new ControlError(
            'interrupted',
            `${this.#options.peer} did not answer within ${silenceMaxMs} ms (${this.#options.socketPath})`,
          ),
        );
      });
      request.on('error', (error) => {
        reject(error instanceof ControlError ? error : this.#connectionError(error));
      });
      request.end(payload);
    });
    if ((response.statusCode ?? 500) < 400) return response;
    throw this.#refusal(await this.#collect(response), response.statusCode ?? 500);
  }

  async #collect(response: IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        sizeBytes += chunk.byteLength;
        if (sizeBytes > answerBytesMax) {
          throw new ControlError('unexpected-answer', 'the answer is too large: ask for less');
        }
        chunks.push(chunk);
      }
    } catch (error) {
      throw error instanceof ControlError ? error : this.#connectionError(error);
    }
    return Buffer.concat(chunks).toString('utf8');
  }

  #parse<Schema extends z.ZodType>(text: string, schema: Schema): z.output<Schema> {
    let document: unknown;
    try {
      document = JSON.parse(text);
    } catch (cause) {
      throw this.#unexpected('it is no JSON', cause);
    }
    const parsed = schema.safeParse(document);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    throw this.#unexpected(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`, parsed.error);
  }

  #unexpected(reason: string, cause: unknown): ControlError {
    return new ControlError(
      'unexpected-answer',
      `${this.#options.peer} gave an answer that this program does not know (${reason}): both must be of one version`,
      { cause },
    );
  }

  #refusal(text: string, status: number): ControlError {
    try {
      const { error } = errorAnswerSchema.parse(JSON.parse(text));
      const problems = (error.problems ?? [])
        .map((problem) => formatProblem(problem))
        // A ConfigError's message holds its problems already.
        .filter((line) => !error.message.includes(line));
      return new ControlError('refused', [error.message, ...problems].join('\n'), {
        peerCode: error.code,
      });
    } catch (cause) {
      return new ControlError('refused', `${this.#options.peer} answered ${status}: ${text}`, {
        cause,
      });
    }
  }

  #connectionError(cause: unknown): ControlError {
    const { peer, socketPath, startCommand } = this.#options;
    const code = systemErrorCode(cause);
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      return new ControlError(
        'not-running',
        `${peer} is not running (nothing serves ${socketPath}); start it with: ${startCommand}`,
        { cause },
      );
    }
    if (code === 'EACCES' || code === 'EPERM') {
      return new ControlError(
        'permission-denied',
        `${socketPath} belongs to another user: run this command as that user, or as root`,
        { cause },
      );
    }
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new ControlError('interrupted', `the connection to ${peer} broke: ${reason}`, { cause });
  }
}

async function* linesOf(response: IncomingMessage): AsyncGenerator<string, void> {
  response.setEncoding('utf8');
  let rest = '';
  for await (const chunk of response as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') yield line;
    if (rest.length > lineCharsMax) {
      throw new ControlError('unexpected-answer', 'a line of the stream is too long');
    }
  }
  if (rest !== '') yield rest;
}
