import { z } from 'zod';

/** Why a neighbour's request was refused, with the HTTP status; all that an error ever tells. */
const statuses = {
  /** No signature, or one of another form than message-signature.ts has. */
  'signature-missing': 401,
  /** The key belongs to no site that we know in this relation. */
  'unknown-key': 401,
  'signature-invalid': 401,
  /** The request names another relation than the connection belongs to. */
  'relation-mismatch': 401,
  'digest-mismatch': 400,
  /** Signed too long ago, or for longer than is accepted. */
  expired: 401,
  /** Signed in the future: one of the two clocks is wrong. */
  'not-yet-valid': 401,
  /** The nonce was seen before. */
  replayed: 409,
  /** More requests than the relation's quota, at once or by time. */
  'rate-limited': 429,
  'too-large': 413,
  /** The body did not arrive in time, or not whole. */
  incomplete: 400,
  'not-found': 404,
  /** The body is not what the endpoint takes. */
  malformed: 400,
  /** For now; the same request may succeed later. */
  unavailable: 503,
  internal: 500,
} as const;

export type ControlCode = keyof typeof statuses;

const codes = Object.keys(statuses) as [ControlCode, ...ControlCode[]];

/** The body of every refusal. */
export const refusalSchema = z.strictObject({ error: z.strictObject({ code: z.enum(codes) }) });

/** The HTTP status of a refusal. */
export function statusOf(code: ControlCode): number {
  return statuses[code];
}

/** Whether the same request, signed anew, may succeed later. */
export function isRetryable(code: ControlCode): boolean {
  return code === 'rate-limited' || code === 'unavailable';
}

/** Thrown inside the server to refuse a request. */
export class RequestRefused extends Error {
  override readonly name = 'RequestRefused';
  readonly code: ControlCode;

  constructor(code: ControlCode, cause?: unknown) {
    super(code, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}
