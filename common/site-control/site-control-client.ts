import assert from 'node:assert';
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { TLSSocket } from 'node:tls';

import type { z } from 'zod';

import type { AuditTrail } from '../audit/audit-entry.ts';
import type { TlsIdentity } from '../identity/tls-identity.ts';
import { backoffDelayMs, type BackoffPolicy } from '../runtime/backoff.ts';
import type { Cancel, Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import type { Service } from '../runtime/service.ts';
import { refusalSchema, statusOf } from './control-code.ts';
import { outcomeOf, type Endpoint } from './endpoint.ts';
import {
  answerVerifies,
  contentDigestOf,
  digestMatches,
  parseAnswerSignature,
  signRequest,
} from './message-signature.ts';
import type { SignatureTimes } from './request-gate.ts';
import {
  connectionError,
  refusalBy,
  SiteControlError,
  unknownAnswer,
  untrusted,
} from './site-control-error.ts';
import { certificateFields, certificateIn, type KeyUse, type SiteKeys } from './site-keys.ts';
import { secureContextOf } from './tls-options.ts';

export interface SiteControlClientOptions {
  readonly relation: string;
  readonly host: string;
  readonly port: number;
  readonly times: SignatureTimes;
  /** From the begin of an attempt to the end of its answer, ms. */
  readonly timeoutMs: number;
  /** Attempts of one idempotent request. */
  readonly retries: BackoffPolicy;
  /** Body of one answer; a longer one is `answer-unknown`. */
  readonly answerBytesMax: number;
  /** Connections to the neighbour; further requests wait for one, within their `timeoutMs`. */
  readonly connectionsMax: number;
}

export const siteControlClientDefault: Omit<
  SiteControlClientOptions,
  'relation' | 'host' | 'port' | 'times'
> = {
  timeoutMs: 10_000,
  retries: { initialMs: 100, maxMs: 2_000, attemptsMax: 4 },
  answerBytesMax: 256 * 1_024,
  connectionsMax: 4,
};

export interface SiteControlClientDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly identity: TlsIdentity;
  readonly keys: SiteKeys;
  readonly audit: AuditTrail;
}

const idleSocketsMax = 2;

/**
 * Asks one neighbour. An attempt is signed anew, with a nonce and times of its own; attempts of one request have one
 * idempotency key. Only requests of idempotent endpoints are repeated, and only after errors that are retryable.
 */
export class SiteControlClient implements Service {
  readonly name: string;
  readonly #dependencies: SiteControlClientDependencies;
  readonly #options: SiteControlClientOptions;
  readonly #sockets = new Map<TLSSocket, Uint8Array>();
  #agent: Agent | undefined;
  #cancelChanges: Cancel = () => {};

  constructor(dependencies: SiteControlClientDependencies, options: SiteControlClientOptions) {
    this.name = `site-control ${options.relation}`;
    this.#dependencies = dependencies;
    this.#options = options;
  }

  /** Connects to nobody yet. */
  start(): Promise<void> {
    assert(this.#agent === undefined);
    this.#agent = this.#newAgent();
    this.#cancelChanges = this.#dependencies.identity.onChange(() => {
      // Requests under way end on their connections; no new ones begin there.
      const old = this.#agent;
      this.#agent = this.#newAgent();
      if (old !== undefined) retire(old);
      this.#cutUntrusted();
    });
    return Promise.resolve();
  }

  /** Breaks off what is under way. */
  stop(): Promise<void> {
    this.#cancelChanges();
    this.#agent?.destroy();
    this.#agent = undefined;
    for (const socket of this.#sockets.keys()) socket.destroy();
    return Promise.resolve();
  }

  /**
   * One request; `body` as the endpoint's schema takes it (`{}` for a GET). Each attempt's outcome is in the audit log.
   * @throws SiteControlError; AuditError when an attempt can't be recorded, whatever came of it
   */
  async call<Request extends z.ZodType, Answer extends z.ZodType>(
    endpoint: Endpoint<Request, Answer>,
    body: z.input<Request>,
    signal?: AbortSignal,
  ): Promise<z.output<Answer>> {
    const { clock, random, log } = this.#dependencies;
    const { relation, retries } = this.#options;
    const idempotencyKey = token(random);
    for (let attemptIndex = 0; ; attemptIndex += 1) {
      try {
        return await this.#attempt(endpoint, body, idempotencyKey, signal);
      } catch (error) {
        const isLast =
          !(error instanceof SiteControlError) ||
          !error.retryable ||
          !endpoint.isIdempotent ||
          signal?.aborted === true ||
          attemptIndex + 1 >= retries.attemptsMax;
        if (isLast) throw error;
        log.info('site-control-retry', { relation, path: endpoint.path, code: error.code });
        await clock.sleep(backoffDelayMs(retries, attemptIndex, random), signal);
      }
    }
  }

  async #attempt<Request extends z.ZodType, Answer extends z.ZodType>(
    endpoint: Endpoint<Request, Answer>,
    body: z.input<Request>,
    idempotencyKey: string,
    signal: AbortSignal | undefined,
  ): Promise<z.output<Answer>> {
    const isGet = endpoint.method === 'GET';
    const request = endpoint.requestSchema.parse(body);
    const payload = isGet ? Buffer.alloc(0) : Buffer.from(JSON.stringify(request));
    let outcome = 'unanswered';
    try {
      const answer = await this.#exchange(endpoint, payload, idempotencyKey, signal);
      outcome = outcomeOf(answer);
      return answer;
    } catch (error) {
      if (error instanceof SiteControlError) outcome = error.peerCode ?? error.code;
      throw error;
    } finally {
      this.#dependencies.audit.append({
        relation: this.#options.relation,
        direction: 'out',
        action: `${endpoint.method} ${endpoint.path}`,
        object: '',
        outcome,
        requestDigest: createHash('sha256').update(payload).digest('hex'),
      });
    }
  }

  async #exchange<Answer extends z.ZodType>(
    endpoint: Endpoint<z.ZodType, Answer>,
    payload: Buffer,
    idempotencyKey: string,
    signal: AbortSignal | undefined,
  ): Promise<z.output<Answer>> {
    const { relation } = this.#options;
    const headers = this.#signedHeaders(endpoint, payload, idempotencyKey);
    const received = await this.#send(endpoint, headers, payload, signal);
    const isOk = received.status === 200;
    if (!this.#isVerified(received, headers.signature, endpoint.keyUse ?? 'signing')) {
      // A neighbour that is flooded has no time to sign; it is believed as far as to ask again later.
      if (received.status === statusOf('rate-limited')) throw refusalBy(relation, 'rate-limited');
      throw new SiteControlError(
        'answer-unverified',
        `the neighbour of relation ${relation} answered ${received.status} without its signature on it: compare the keys with isobar site status at both sites`,
      );
    }
    const document = parseJson(received.body);
    if (isOk) {
      const parsed = endpoint.answerSchema.safeParse(document);
      if (parsed.success) return parsed.data;
      throw unknownAnswer(relation, parsed.error);
    }
    const refusal = refusalSchema.safeParse(document);
    if (!refusal.success) throw unknownAnswer(relation, refusal.error);
    throw refusalBy(relation, refusal.data.error.code);
  }

  #signedHeaders(endpoint: Endpoint, payload: Buffer, idempotencyKey: string) {
    const { clock, random, keys } = this.#dependencies;
    const { relation, host, port, times } = this.#options;
    const contentDigest = contentDigestOf(payload);
    const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    const createdS = Math.floor(clock.wallUs() / 1_000_000);
    const { signatureInput, signature } = signRequest(
      {
        method: endpoint.method,
        targetUri: `https://${authority}${endpoint.path}`,
        contentDigest,
        idempotencyKey,
        relation,
      },
      { createdS, expiresS: createdS + times.lifetimeMaxS, nonce: token(random) },
      keys.signingKey(),
    );
    return {
      host: authority,
      'content-type': 'application/json',
      'content-length': String(payload.byteLength),
      'content-digest': contentDigest,
      'idempotency-key': idempotencyKey,
      'isobar-relation': relation,
      'signature-input': signatureInput,
      signature,
      ...certificateFields(keys),
    };
  }

  /** Resolves with a whole answer, of whatever status. */
  async #send(
    endpoint: Endpoint,
    headers: Readonly<Record<string, string>>,
    payload: Buffer,
    signal: AbortSignal | undefined,
  ): Promise<Received> {
    const { host, port, relation, timeoutMs, answerBytesMax } = this.#options;
    const agent = this.#agent;
    assert(agent !== undefined, `${this.name} is not started`);
    return new Promise((resolve, reject) => {
      const request = httpsRequest(
        {
          host,
          port,
          agent,
          method: endpoint.method,
          path: endpoint.path,
          headers: { ...headers },
        },
        (response) => {
          collect(response, answerBytesMax).then(resolve, fail);
        },
      );
      const end = (error: SiteControlError): void => {
        request.destroy();
        settle();
        reject(error);
      };
      const fail = (error: unknown): void => {
        end(error instanceof SiteControlError ? error : connectionError(relation, error));
      };
      const onAbort = (): void => {
        end(new SiteControlError('unreachable', `the request to ${relation} was broken off`));
      };
      const cancel = this.#dependencies.clock.after(timeoutMs, () => {
        const message = `the neighbour of relation ${relation} (${host}:${port}) gave no answer within ${timeoutMs} ms`;
        end(new SiteControlError('timed-out', message));
      });
      const settle = (): void => {
        cancel();
        signal?.removeEventListener('abort', onAbort);
      };
      request.on('socket', (socket) => {
        this.#watch(socket as TLSSocket);
      });
      request.on('error', fail);
      request.on('close', settle);
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted === true) onAbort();
      else request.end(payload);
    });
  }

  /** Remembers whom a new connection leads to, for the time when the neighbour's certificate is revoked. */
  #watch(socket: TLSSocket): void {
    if (this.#sockets.has(socket)) return;
    this.#sockets.set(socket, new Uint8Array());
    socket.once('close', () => {
      this.#sockets.delete(socket);
    });
    socket.once('secureConnect', () => {
      this.#sockets.set(socket, socket.getPeerCertificate().raw);
    });
  }

  #isNeighbour(certificate: Uint8Array | undefined): boolean {
    const { relation } = this.#options;
    return (
      certificate !== undefined && this.#dependencies.identity.relationOf(certificate) === relation
    );
  }

  #cutUntrusted(): void {
    for (const [socket, certificate] of this.#sockets) {
      if (certificate.byteLength > 0 && !this.#isNeighbour(certificate)) socket.destroy();
    }
  }

  /**
   * The times of an answer's signature are not looked at: it covers that of our request, so it can't be older. With a clock
   * that is wrong we so learn from the neighbour that it is.
   */
  #isVerified(received: Received, requestSignature: string, use: KeyUse): boolean {
    const { keys } = this.#dependencies;
    const { relation } = this.#options;
    const { headers, body, status } = received;
    const { 'content-digest': contentDigest, 'signature-input': signatureInput } = headers;
    const { signature } = headers;
    if (
      typeof contentDigest !== 'string' ||
      typeof signatureInput !== 'string' ||
      typeof signature !== 'string' ||
      !digestMatches(contentDigest, body)
    ) {
      return false;
    }
    const parsed = parseAnswerSignature({ signatureInput, signature });
    if (parsed === undefined) return false;
    const { keyId } = parsed.parameters;
    const key = keys.verificationKeyOf(relation, keyId, received.certificate, use);
    return (
      key !== undefined && answerVerifies({ status, contentDigest, requestSignature }, parsed, key)
    );
  }

  #newAgent(): Agent {
    return new Agent({
      ...secureContextOf(this.#dependencies.identity),
      keepAlive: true,
      noDelay: true,
      maxSockets: this.#options.connectionsMax,
      maxFreeSockets: idleSocketsMax,
      // A resumed session skips the look at the certificate.
      maxCachedSessions: 0,
      // Who the pinned authority says it is, whatever name it is reached by: sites sit behind forwarded ports.
      checkServerIdentity: (_host, certificate) =>
        this.#isNeighbour(certificate.raw) ? undefined : untrusted(this.#options.relation),
    });
  }
}

interface Received {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly certificate: string | undefined;
}

/** 22 characters of 16 random bytes. */
function token(random: Random): string {
  return Buffer.from(random.bytes(16)).toString('base64url');
}

/** Lets requests under way end, keeps no connection for later ones. */
function retire(agent: Agent): void {
  agent.maxFreeSockets = 0;
  for (const sockets of Object.values(agent.freeSockets)) {
    for (const socket of sockets ?? []) socket.destroy();
  }
}

async function collect(response: IncomingMessage, bytesMax: number): Promise<Received> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > bytesMax) {
      throw new SiteControlError('answer-unknown', `the answer has more than ${bytesMax} bytes`);
    }
    chunks.push(chunk);
  }
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: Buffer.concat(chunks),
    certificate: certificateIn(response.headersDistinct),
  };
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}
