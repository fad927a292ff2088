import assert from 'node:assert';
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';

import type { AuditTrail } from '../audit/audit-entry.ts';
import type { TlsIdentity } from '../identity/tls-identity.ts';
import type { Cancel, Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { OperatingError } from '../runtime/operating-error.ts';
import type { Random } from '../runtime/random.ts';
import type { Service } from '../runtime/service.ts';
import { StageCounters, type StageCounts } from '../runtime/stage-counters.ts';
import { RequestRefused, statusOf, type ControlCode } from './control-code.ts';
import type { BoundEndpoint } from './endpoint.ts';
import { Exchange, readBody } from './exchange.ts';
import { listen } from './listen.ts';
import { contentDigestOf, isSignatureField, signAnswer } from './message-signature.ts';
import type { ReplayStore } from './replay-store.ts';
import { readHead, RequestGate, type SignatureTimes } from './request-gate.ts';
import { SiteConnections, type ConnectionBounds, type Neighbour } from './site-connections.ts';
import { certificateFields, type SiteKeys } from './site-keys.ts';
import { secureContextOf } from './tls-options.ts';

export interface SiteControlServerOptions extends ConnectionBounds {
  readonly host: string;
  /** 0: a free one; see {@link SiteControlServer.port}. */
  readonly port: number;
  readonly times: SignatureTimes;
  /** Body of one request; a longer one is `too-large`. */
  readonly requestBytesMax: number;
  /** Requests of one relation that are being read or handled; one more is `rate-limited`. */
  readonly inFlightPerRelationMax: number;
  /** TLS handshake, ms. */
  readonly handshakeTimeoutMs: number;
  /** From a request's first byte to the end of its head, and to the end of its body, ms; then the connection is closed. */
  readonly headTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** How often those two are looked at, ms. */
  readonly timeoutCheckMs: number;
  /** A handler that takes longer is answered for with `unavailable`, ms. */
  readonly handlerTimeoutMs: number;
  /** An idle connection is closed after it, ms. */
  readonly idleTimeoutMs: number;
  /** How long `stop` waits for requests under way, ms. */
  readonly drainTimeoutMs: number;
}

/** What suits a handful of neighbours that ask each other a few times a minute. */
export const siteControlServerDefault: Omit<SiteControlServerOptions, 'host' | 'port' | 'times'> = {
  requestBytesMax: 256 * 1_024,
  inFlightPerRelationMax: 8,
  connectionsPerRelationMax: 8,
  handshakesMax: 256,
  handshakesPerAddressMax: 32,
  connectionAgeMaxMs: 3_600_000,
  quota: { burst: 50, perSecond: 20 },
  requestsPerHourMax: 3_600,
  handshakeTimeoutMs: 5_000,
  headTimeoutMs: 5_000,
  requestTimeoutMs: 15_000,
  timeoutCheckMs: 1_000,
  handlerTimeoutMs: 10_000,
  idleTimeoutMs: 60_000,
  drainTimeoutMs: 5_000,
};

export interface SiteControlServerDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly identity: TlsIdentity;
  readonly keys: SiteKeys;
  readonly replays: ReplayStore;
  readonly audit: AuditTrail;
}

const headBytesMax = 16 * 1_024;

/**
 * Answers the requests of neighbouring sites over mutual TLS 1.3. What a request passes before its handler runs:
 *
 *   TLS: pinned authority, CRL -> relation -> quota -> head, body within bounds and times -> RequestGate -> endpoint, schema
 *
 * What goes out is rebuilt from the endpoint's schema, or is a code of control-code.ts; it is signed whenever the request
 * bore a signature that it can be bound to. Each request that passed the quota is in the audit log before it is answered.
 * `start` throws the system's error when the port can't be had.
 */
export class SiteControlServer implements Service {
  readonly name = 'site-control';
  readonly #endpoints: ReadonlyMap<string, BoundEndpoint>;
  readonly #dependencies: SiteControlServerDependencies;
  readonly #options: SiteControlServerOptions;
  readonly #gate: RequestGate;
  readonly #connections: SiteConnections;
  readonly #counters = new StageCounters();
  #server: Server | undefined;
  #cancelChanges: Cancel = () => {};
  #isStopping = false;

  constructor(
    endpoints: readonly BoundEndpoint[],
    dependencies: SiteControlServerDependencies,
    options: SiteControlServerOptions,
  ) {
    this.#endpoints = new Map(endpoints.map((each) => [`${each.method} ${each.path}`, each]));
    assert(this.#endpoints.size === endpoints.length, 'two endpoints have the same path');
    this.#dependencies = dependencies;
    this.#options = options;
    this.#gate = new RequestGate(dependencies, options.times);
    this.#connections = new SiteConnections(dependencies, options);
  }

  /** Where it listens; after `start`. */
  get port(): number {
    const address = this.#server?.address();
    assert(typeof address === 'object' && address !== null, 'the server does not listen');
    return address.port;
  }

  /** `https://HOST:PORT`; null while it does not listen. */
  get url(): string | null {
    const { host } = this.#options;
    if (this.#server === undefined) return null;
    return `https://${host.includes(':') ? `[${host}]` : host}:${this.port}`;
  }

  /** Dropped: beyond a quota. Failed: refused for another reason. */
  counts(): StageCounts {
    return this.#counters.snapshot();
  }

  async start(): Promise<void> {
    const options = this.#options;
    const server = createServer({
      ...secureContextOf(this.#dependencies.identity),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: options.handshakeTimeoutMs,
      noDelay: true,
      maxHeaderSize: headBytesMax,
      headersTimeout: options.headTimeoutMs,
      requestTimeout: options.requestTimeoutMs,
      connectionsCheckingInterval: options.timeoutCheckMs,
      keepAliveTimeout: options.idleTimeoutMs,
    });
    server.on('connection', (socket: Socket) => {
      this.#connections.acceptHandshake(socket);
    });
    // Before the listener of HTTP, so that no request of a peer that nobody trusts is ever read.
    server.prependListener('secureConnection', (socket) => {
      this.#connections.acceptConnection(socket);
    });
    server.on('request', (request, response) => {
      void this.#answer(request, response);
    });
    this.#cancelChanges = this.#dependencies.identity.onChange(() => {
      server.setSecureContext(secureContextOf(this.#dependencies.identity));
      this.#connections.cutUntrusted();
    });
    await listen(server, options);
    this.#server = server;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.#isStopping = true;
    this.#cancelChanges();
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
    });
    server.closeIdleConnections();
    const { clock } = this.#dependencies;
    const cancel = clock.after(this.#options.drainTimeoutMs, () => {
      server.closeAllConnections();
    });
    await closed;
    cancel();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const neighbour = this.#connections.neighbourOf(request.socket);
    // The signature says when; a second clock reading would only say more of this machine.
    response.sendDate = false;
    if (neighbour === undefined) {
      request.socket.destroy();
      return;
    }
    if (!this.#isWithinQuota(neighbour)) {
      this.#refuseCheaply(request, response);
      return;
    }
    neighbour.inFlight += 1;
    try {
      const exchange = new Exchange(neighbour.relation, request);
      const answer = await this.#handle(exchange, request, response);
      if (!response.destroyed) this.#send(exchange, answer, request, response);
    } catch (error) {
      // A key that can't sign, for one: nobody is answered, and the connection says so.
      this.#dependencies.log.error('site-control-answer-failed', { error: String(error) });
      request.socket.destroy();
    } finally {
      neighbour.inFlight -= 1;
    }
  }

  #isWithinQuota({ relation, quota, inFlight }: Neighbour): boolean {
    const nowMs = this.#dependencies.clock.monotonicMs();
    const isWithin = quota.take(nowMs) && inFlight < this.#options.inFlightPerRelationMax;
    if (!isWithin) {
      this.#counters.dropped += 1;
      quota.countRefusal();
    }
    const refusedCount = quota.takeNote(nowMs);
    if (refusedCount > 0) this.#noteRefusals(relation, refusedCount);
    return isWithin;
  }

  /** One entry for many: a flood must not fill the audit log. */
  #noteRefusals(relation: string, refusedCount: number): void {
    const { log, audit } = this.#dependencies;
    log.warn('site-control-quota-exceeded', { relation, refusedCount });
    try {
      audit.append({
        relation,
        direction: 'in',
        action: 'request',
        object: `${refusedCount} refused`,
        outcome: 'rate-limited',
        requestDigest: null,
      });
    } catch (error) {
      log.error('site-control-audit-failed', { error: String(error) });
    }
  }

  /**
   * Without a signature, and with the connection kept where the body is within bounds: a new handshake would cost both
   * sites a hundred times what the refusal does.
   */
  #refuseCheaply(request: IncomingMessage, response: ServerResponse): void {
    const isSmall = Number(request.headers['content-length']) <= this.#options.requestBytesMax;
    response.writeHead(statusOf('rate-limited'), {
      'content-length': '0',
      ...(isSmall ? {} : { connection: 'close' }),
    });
    if (isSmall) request.resume();
    response.end(isSmall ? undefined : () => request.socket.destroySoon());
  }

  /** The answer, or the refusal, of one request, once it is in the audit log. */
  async #handle(
    exchange: Exchange,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<Answer> {
    let answer: Answer;
    try {
      answer = await this.#run(exchange, request, response);
      this.#counters.accepted += 1;
    } catch (error) {
      const code = this.#codeOf(error, exchange);
      this.#counters.failed += 1;
      answer = { status: statusOf(code), document: { error: { code } }, outcome: code };
    }
    try {
      this.#dependencies.audit.append({
        relation: exchange.relation,
        direction: 'in',
        action: exchange.action,
        object: exchange.object,
        outcome: answer.outcome,
        requestDigest: exchange.bodyDigest,
      });
      this.#counters.forwarded += 1;
      return answer;
    } catch (error) {
      // What is not recorded is not answered.
      this.#dependencies.log.error('site-control-audit-failed', { error: String(error) });
      const code = 'unavailable';
      return { status: statusOf(code), document: { error: { code } }, outcome: code };
    }
  }

  async #run(
    exchange: Exchange,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<Answer> {
    const { relation } = exchange;
    const body = await readBody(request, this.#options.requestBytesMax);
    exchange.bodyDigest = createHash('sha256').update(body).digest('hex');
    const head = readHead(request);
    exchange.requestSignature = isSignatureField(head.signature) ? head.signature : undefined;
    const action = `${head.method} ${head.path}`;
    const endpoint = this.#endpoints.get(action);
    this.#gate.check(relation, head, body, endpoint?.keyUse ?? 'signing');
    if (this.#isStopping) throw new RequestRefused('unavailable');
    if (endpoint === undefined) throw new RequestRefused('not-found');
    exchange.action = action;
    const prepared = endpoint.prepare(body);
    exchange.object = prepared.object;
    const handled = await this.#withinTime(response, (signal) =>
      prepared.run(relation, { idempotencyKey: head.idempotencyKey, signal }),
    );
    return { status: 200, document: handled.answer, outcome: handled.outcome };
  }

  async #withinTime<Result>(
    response: ServerResponse,
    run: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const controller = new AbortController();
    const abort = (): void => {
      controller.abort();
    };
    response.once('close', abort);
    const late = new Promise<never>((_resolve, reject) => {
      controller.signal.addEventListener('abort', () => {
        reject(new RequestRefused('unavailable'));
      });
    });
    // Nobody may be left to hear of it.
    late.catch(() => {});
    const cancel = this.#dependencies.clock.after(this.#options.handlerTimeoutMs, abort);
    try {
      return await Promise.race([run(controller.signal), late]);
    } finally {
      cancel();
      response.removeListener('close', abort);
    }
  }

  #codeOf(error: unknown, exchange: Exchange): ControlCode {
    const { log } = this.#dependencies;
    const { relation, action } = exchange;
    if (error instanceof RequestRefused) {
      log.info('site-control-request-refused', { relation, action, code: error.code });
      return error.code;
    }
    const isForNow = error instanceof OperatingError && error.retryable;
    log.error('site-control-request-failed', {
      relation,
      action,
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    return isForNow ? 'unavailable' : 'internal';
  }

  #send(
    exchange: Exchange,
    answer: Answer,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const body = Buffer.from(JSON.stringify(answer.document));
    const contentDigest = contentDigestOf(body);
    const { requestSignature } = exchange;
    const signature =
      requestSignature === undefined
        ? {}
        : this.#signatureFields({ status: answer.status, contentDigest, requestSignature });
    // A body that was not read to its end would be taken for the next request.
    const ends = !request.complete || this.#isStopping || this.#connections.isOld(request.socket);
    response.writeHead(answer.status, {
      'content-type': 'application/json',
      'content-length': String(body.byteLength),
      'content-digest': contentDigest,
      ...signature,
      ...(ends ? { connection: 'close' } : {}),
    });
    response.end(body);
  }

  #signatureFields(answer: Parameters<typeof signAnswer>[0]): Record<string, string> {
    const { clock, random, keys } = this.#dependencies;
    const createdS = Math.floor(clock.wallUs() / 1_000_000);
    const times = {
      createdS,
      expiresS: createdS + this.#options.times.lifetimeMaxS,
      nonce: Buffer.from(random.bytes(16)).toString('base64url'),
    };
    const { signatureInput, signature } = signAnswer(answer, times, keys.signingKey());
    return { 'signature-input': signatureInput, signature, ...certificateFields(keys) };
  }
}

interface Answer {
  readonly status: number;
  readonly document: unknown;
  readonly outcome: string;
}
