import type { IncomingMessage } from 'node:http';

import type { Clock } from '../runtime/clock.ts';
import { RequestRefused } from './control-code.ts';
import {
  contentDigestOf,
  digestMatches,
  parseRequestSignature,
  requestVerifies,
  type SignatureParameters,
} from './message-signature.ts';
import type { Admission, ReplayStore } from './replay-store.ts';
import { certificateIn, type KeyUse, type SiteKeys } from './site-keys.ts';

/** How long signatures are good for. Both sites of a relation should have the same. */
export interface SignatureTimes {
  /** From `created` to `expires` at most, s. */
  readonly lifetimeMaxS: number;
  /** Tolerated difference between the clocks of two sites, s. */
  readonly skewMaxS: number;
}

/** A request is good for a minute, and clocks may differ by half of one. */
export const signatureTimesDefault: SignatureTimes = { lifetimeMaxS: 60, skewMaxS: 30 };

/** What a request says of itself, each field there exactly once. Nothing of it is verified. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly targetUri: string;
  readonly contentDigest: string;
  readonly idempotencyKey: string;
  readonly relation: string;
  readonly signatureInput: string;
  readonly signature: string;
  /** Beside the signature: whose key it is, to be verified by itself. */
  readonly certificate: string | undefined;
}

const tokenShape = /^[A-Za-z0-9_-]{1,64}$/;
const hostShape = /^[A-Za-z0-9.:[\]_-]{1,260}$/;

/** @throws RequestRefused `signature-missing` when a field is absent, there twice, or of another form */
export function readHead(request: IncomingMessage): RequestHead {
  const field = (name: string): string => {
    const values = request.headersDistinct[name] ?? [];
    const [value] = values;
    if (value === undefined || values.length > 1) throw new RequestRefused('signature-missing');
    return value;
  };
  const head = {
    method: request.method ?? '',
    path: request.url ?? '',
    targetUri: `https://${field('host')}${request.url ?? ''}`,
    contentDigest: field('content-digest'),
    idempotencyKey: field('idempotency-key'),
    relation: field('isobar-relation'),
    signatureInput: field('signature-input'),
    signature: field('signature'),
    certificate: certificateIn(request.headersDistinct),
  };
  const isWellFormed =
    head.path.startsWith('/') &&
    hostShape.test(field('host')) &&
    tokenShape.test(head.idempotencyKey) &&
    tokenShape.test(head.relation) &&
    request.headers['content-encoding'] === undefined;
  if (!isWellFormed) throw new RequestRefused('signature-missing');
  return head;
}

/** Why times are not accepted; undefined when they are. */
export function timesProblem(
  parameters: Pick<SignatureParameters, 'createdS' | 'expiresS'>,
  times: SignatureTimes,
  nowS: number,
): 'expired' | 'not-yet-valid' | undefined {
  const { createdS, expiresS } = parameters;
  if (createdS > nowS + times.skewMaxS) return 'not-yet-valid';
  const lifetimeS = expiresS - createdS;
  if (lifetimeS < 0 || lifetimeS > times.lifetimeMaxS) return 'expired';
  if (expiresS + times.skewMaxS < nowS) return 'expired';
  return undefined;
}

/**
 * Decides whether a request is the neighbour's, whole, timely and new:
 *
 *   relation (of the TLS connection) -> digest of the body -> form and times -> key of that relation -> signature -> nonce
 *
 * The nonce comes last, so that only its signer can use it up.
 */
export class RequestGate {
  readonly #clock: Clock;
  readonly #keys: SiteKeys;
  readonly #replays: ReplayStore;
  readonly #times: SignatureTimes;

  constructor(
    dependencies: {
      readonly clock: Clock;
      readonly keys: SiteKeys;
      readonly replays: ReplayStore;
    },
    times: SignatureTimes,
  ) {
    this.#clock = dependencies.clock;
    this.#keys = dependencies.keys;
    this.#replays = dependencies.replays;
    this.#times = times;
  }

  /** `use` is that of the endpoint which method and path name; both are signed. @throws RequestRefused */
  check(relation: string, head: RequestHead, body: Uint8Array, use: KeyUse): void {
    if (head.relation !== relation) throw new RequestRefused('relation-mismatch');
    if (!digestMatches(head.contentDigest, body)) throw new RequestRefused('digest-mismatch');
    const parsed = parseRequestSignature(head);
    if (parsed === undefined) throw new RequestRefused('signature-missing');
    const nowS = Math.floor(this.#clock.wallUs() / 1_000_000);
    const problem = timesProblem(parsed.parameters, this.#times, nowS);
    if (problem !== undefined) throw new RequestRefused(problem);
    const { keyId } = parsed.parameters;
    const key = this.#keys.verificationKeyOf(relation, keyId, head.certificate, use);
    if (key === undefined) throw new RequestRefused('unknown-key');
    const signed = { ...head, contentDigest: contentDigestOf(body) };
    if (!requestVerifies(signed, parsed, key)) throw new RequestRefused('signature-invalid');
    refuseUnlessFresh(this.#replays.admit(relation, parsed.parameters));
  }
}

function refuseUnlessFresh(admission: Admission): void {
  switch (admission) {
    case 'fresh':
      return;
    case 'replayed':
      throw new RequestRefused('replayed');
    case 'expired':
      throw new RequestRefused('expired');
    case 'full':
      throw new RequestRefused('rate-limited');
    case 'uncertain':
      throw new RequestRefused('unavailable');
  }
}
