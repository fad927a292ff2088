import type { SigningIdentity } from '../identity/tls-identity.ts';
import { declareLoss, type LossClaim, type LossDeclaration } from './loss-declaration.ts';
import { NewestSigningKey } from './site-signature.ts';

/** What one site declares lost to a neighbour: under its own key, with the certificate of that key alone. */
export interface DeclaredLosses {
  /** DER, base64; null: not signed. */
  readonly certificate: string | null;
  readonly losses: LossDeclaration[];
}

/** Signs losses with this site's newest signing key, whoever declared them to it; unsigned where there is no site. */
export class LossSigner {
  readonly #newestKey: NewestSigningKey | undefined;

  constructor(identity: SigningIdentity | undefined) {
    this.#newestKey = identity === undefined ? undefined : new NewestSigningKey(identity);
  }

  declare(claims: readonly LossClaim[]): DeclaredLosses {
    const key = this.#newestKey?.get();
    return {
      certificate: key?.certificate ?? null,
      losses: claims.map((claim) => declareLoss(claim, key?.key)),
    };
  }
}
