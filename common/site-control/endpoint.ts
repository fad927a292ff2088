import assert from 'node:assert';

import type { z } from 'zod';

import { assertAllowList } from './allow-list.ts';
import { RequestRefused } from './control-code.ts';
import type { KeyUse } from './site-keys.ts';

/** One thing that a site may ask of a neighbour; the same value describes it to the client and to the server. */
export interface Endpoint<
  Request extends z.ZodType = z.ZodType,
  Answer extends z.ZodType = z.ZodType,
> {
  readonly method: 'GET' | 'POST';
  /** Exactly this path, without a query. */
  readonly path: string;
  /** The JSON body of a POST, strict; of a GET there is no body, and the schema takes `{}`. */
  readonly requestSchema: Request;
  /** An allow-list: what goes out is rebuilt from it. */
  readonly answerSchema: Answer;
  /**
   * Whether a handler that runs twice with one idempotency key does what one run does. Only then does a client repeat the
   * request when it doesn't know what became of it.
   */
  readonly isIdempotent: boolean;
  /** What keys of requests and answers must be good for; `signing` when not given. */
  readonly keyUse?: KeyUse;
}

/** What a handler knows beside the request. */
export interface RequestContext {
  /** The same for each repetition of one request; chosen by the neighbour, unique within the relation. */
  readonly idempotencyKey: string;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

/** What a handled request comes to. */
export interface Handled {
  /** Rebuilt by the answer's schema. */
  readonly answer: unknown;
  /** The answer's `outcome` where it has one, else `ok`; for the audit log. */
  readonly outcome: string;
}

/** An endpoint with what answers it; made by {@link serve}. */
export interface BoundEndpoint {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly keyUse: KeyUse;
  /** @throws RequestRefused `malformed` */
  prepare(body: Buffer): PreparedRequest;
}

/** A request whose body is what the endpoint takes. */
export interface PreparedRequest {
  /** What it is about, for the audit log. */
  readonly object: string;
  /** Throws whatever the handler throws. */
  run(relation: string, context: RequestContext): Promise<Handled>;
}

const pathShape = /^\/v[0-9]+(?:\/[a-z][a-z-]*)+$/;

/**
 * Binds an endpoint to its handler. `relation` is the one that TLS and the signature agree on. A handler answers what its
 * schema allows, or throws: an OperatingError that is retryable becomes `unavailable`, anything else `internal`, and the
 * neighbour learns nothing more.
 * @param objectOf what the request is about, for the audit log
 */
export function serve<Request extends z.ZodType, Answer extends z.ZodType>(
  endpoint: Endpoint<Request, Answer>,
  handle: (
    relation: string,
    request: z.output<Request>,
    context: RequestContext,
  ) => Promise<z.input<Answer>>,
  objectOf: (request: z.output<Request>) => string = () => '',
): BoundEndpoint {
  const { method, path, requestSchema, answerSchema, keyUse = 'signing' } = endpoint;
  assert(pathShape.test(path), `${path} is no path of an endpoint`);
  assertAllowList(answerSchema, `${method} ${path}`);
  const parse = (body: Buffer): z.output<Request> => {
    const parsed = requestSchema.safeParse(method === 'GET' ? emptyOf(body) : jsonOf(body));
    if (!parsed.success) throw new RequestRefused('malformed', parsed.error);
    return parsed.data;
  };
  return {
    method,
    path,
    keyUse,
    prepare: (body) => {
      const request = parse(body);
      return {
        object: objectOf(request),
        run: async (relation, context) => {
          const answer: unknown = answerSchema.parse(await handle(relation, request, context));
          return { answer, outcome: outcomeOf(answer) };
        },
      };
    },
  };
}

/** The answer's `outcome` where it has one, else `ok`. */
export function outcomeOf(answer: unknown): string {
  const hasOutcome = typeof answer === 'object' && answer !== null && 'outcome' in answer;
  return hasOutcome && typeof answer.outcome === 'string' ? answer.outcome : 'ok';
}

function emptyOf(body: Buffer): unknown {
  if (body.length > 0) throw new RequestRefused('malformed');
  return {};
}

function jsonOf(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (cause) {
    throw new RequestRefused('malformed', cause);
  }
}
