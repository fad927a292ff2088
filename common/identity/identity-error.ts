import { OperatingError } from '../runtime/operating-error.ts';

export type IdentityErrorCode =
  | 'site-exists'
  | 'site-missing'
  | 'site-unusable'
  | 'site-locked'
  | 'invitation-refused'
  | 'fingerprint-mismatch'
  | 'neighbour-unknown'
  | 'certificate-unknown'
  | 'revocations-refused'
  | 'revocations-full'
  | 'rotation-refused';

/** A site's identity could not be made, read or changed; nothing was changed then. Never has key material in it. */
export class IdentityError extends OperatingError<IdentityErrorCode> {
  override readonly name = 'IdentityError';
}
