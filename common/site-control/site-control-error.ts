import { OperatingError, systemErrorCode } from '../runtime/operating-error.ts';
import { isRetryable, type ControlCode } from './control-code.ts';

/** Why a request was not answered as its endpoint promises. */
export type SiteControlErrorCode =
  /** No connection, or it broke. Retryable. */
  | 'unreachable'
  /** No whole answer within `timeoutMs`. Retryable. */
  | 'timed-out'
  /** Who answers there is not the neighbour of this relation, or does not take us for one. */
  | 'peer-untrusted'
  /** The answer is not signed by the neighbour for this request. */
  | 'answer-unverified'
  /** The answer is signed and has a shape that this program doesn't know. */
  | 'answer-unknown'
  /** The neighbour refused: `peerCode`. */
  | 'refused';

/** A request that was not answered as its endpoint promises. */
export class SiteControlError extends OperatingError<SiteControlErrorCode> {
  override readonly name = 'SiteControlError';
  /** With `refused`: why. */
  readonly peerCode: ControlCode | null;

  constructor(
    code: SiteControlErrorCode,
    message: string,
    options: { readonly peerCode?: ControlCode; readonly cause?: unknown } = {},
  ) {
    const { peerCode, cause } = options;
    const retryable =
      code === 'unreachable' ||
      code === 'timed-out' ||
      (peerCode !== undefined && isRetryable(peerCode));
    super(code, message, { retryable, cause });
    this.peerCode = peerCode ?? null;
  }
}

/** The neighbour refused. */
export function refusalBy(relation: string, peerCode: ControlCode): SiteControlError {
  const isAboutTime = peerCode === 'expired' || peerCode === 'not-yet-valid';
  const hint = isAboutTime ? '; compare the clocks of both sites' : '';
  const message = `the neighbour of relation ${relation} refused: ${peerCode}${hint}`;
  return new SiteControlError('refused', message, { peerCode });
}

/** A signed answer of another shape. */
export function unknownAnswer(relation: string, cause: unknown): SiteControlError {
  return new SiteControlError(
    'answer-unknown',
    `the neighbour of relation ${relation} gave an answer that this program does not know: compare the versions of both sites`,
    { cause },
  );
}

/** Another site, or nobody known. */
export function untrusted(relation: string): SiteControlError {
  return new SiteControlError(
    'peer-untrusted',
    `who answers is not the neighbour of relation ${relation}: check its address, and compare the fingerprints of its authority`,
  );
}

/** What an error of the socket or of TLS means. */
export function connectionError(relation: string, cause: unknown): SiteControlError {
  const code = systemErrorCode(cause) ?? '';
  // OpenSSL's and Node's names for certificates and alerts.
  if (/^(?:ERR_SSL|ERR_TLS|CERT_|CRL_|UNABLE_TO|DEPTH_ZERO|SELF_SIGNED)/.test(code)) {
    return new SiteControlError(
      'peer-untrusted',
      `the neighbour of relation ${relation} and this site do not take each other's certificates (${code}): isobar site status at both sites shows which`,
      { cause },
    );
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SiteControlError(
    'unreachable',
    `the neighbour of relation ${relation} can't be reached: ${reason}`,
    { cause },
  );
}
