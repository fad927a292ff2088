import { OperatingError } from '../runtime/operating-error.ts';

/**
 * `not-an-envelope`: not DER or BER of a CMS message with encrypted content. `unsupported`: one that is made in a way that
 * is not read here. `not-for-us`: no recipient's key is ours. `not-authentic`: altered, or made for another key of the
 * same name. `too-large`: beyond a bound.
 */
export type EnvelopeProblemCode =
  | 'not-an-envelope'
  | 'unsupported'
  | 'not-for-us'
  | 'not-authentic'
  | 'too-large';

/** Why an envelope stays shut; outcomes of opening, never thrown. */
export interface EnvelopeProblem {
  readonly code: EnvelopeProblemCode;
  readonly rule: string;
}

export type OpenedEnvelope =
  | { readonly ok: true; readonly content: Uint8Array }
  | { readonly ok: false; readonly problem: EnvelopeProblem };

/** A certificate or key that can't be used, with what to do. */
export class SealingError extends OperatingError<'recipient-unusable' | 'key-unusable'> {
  override readonly name = 'SealingError';
}
