import { X509Certificate, type KeyObject } from 'node:crypto';

import type { TlsIdentity } from '../identity/tls-identity.ts';
import { StageCounters } from '../runtime/stage-counters.ts';
import { isLossSignature, type LossClaim, type LossDeclaration } from './loss-declaration.ts';
import type { DeclaredLosses } from './loss-signer.ts';

/** A declaration with the certificate that its signature is of. */
export interface LossProof {
  /** DER, base64. */
  readonly certificate: string;
  readonly declaration: LossDeclaration & { readonly signature: string };
}

/** A loss that a neighbour declared and that counts; `proof` is null when it was not signed. */
export interface JudgedLoss extends LossClaim {
  readonly relation: string;
  readonly proof: LossProof | null;
}

/**
 * Why a declaration does not count:
 *   loss-unsigned   signatures are required, and there is none
 *   loss-forged     the signature is not the neighbour's: another certificate, or another claim
 */
export type LossRefusal = 'loss-unsigned' | 'loss-forged';

/**
 * What the neighbour of one relation declares lost, judged by the authority that was pinned for it. What is refused stays
 * missing: it is asked for again, and judged again.
 */
export class LossJudge {
  /** Declarations; `failed` were refused. */
  readonly counters = new StageCounters();
  readonly #identity: TlsIdentity | undefined;
  readonly #onRefused: (claim: LossClaim, refusal: LossRefusal) => void;
  readonly #options: { readonly relation: string; readonly isRequired: boolean };

  /** Without an identity nobody's signature can be verified: none counts. */
  constructor(
    deps: {
      readonly identity: TlsIdentity | undefined;
      readonly onRefused: (claim: LossClaim, refusal: LossRefusal) => void;
    },
    /** `isRequired`: what is not signed does not count. */
    options: { readonly relation: string; readonly isRequired: boolean },
  ) {
    this.#identity = deps.identity;
    this.#onRefused = deps.onRefused;
    this.#options = options;
  }

  /** Those that count. Never throws, whatever the bytes of the certificate. */
  judge({ certificate, losses }: DeclaredLosses): readonly JudgedLoss[] {
    const { relation, isRequired } = this.#options;
    const key = this.#keyOf(certificate);
    return losses.flatMap((declaration): readonly JudgedLoss[] => {
      const { signature, ...claim } = declaration;
      this.counters.accepted += 1;
      const hasSignature = signature !== null && this.#identity !== undefined;
      if (hasSignature && key !== undefined && isLossSignature(declaration, key.publicKey)) {
        this.counters.forwarded += 1;
        const proof = { certificate: key.certificate, declaration: { ...declaration, signature } };
        return [{ ...claim, relation, proof }];
      }
      if (!hasSignature && !isRequired) {
        this.counters.forwarded += 1;
        return [{ ...claim, relation, proof: null }];
      }
      this.counters.failed += 1;
      this.#onRefused(claim, hasSignature ? 'loss-forged' : 'loss-unsigned');
      return [];
    });
  }

  /** Undefined unless the certificate is one for signing of this neighbour, valid now. */
  #keyOf(
    certificate: string | null,
  ): { readonly certificate: string; readonly publicKey: KeyObject } | undefined {
    if (certificate === null) return undefined;
    const der = Buffer.from(certificate, 'base64');
    if (this.#identity?.relationOf(der, 'signing') !== this.#options.relation) return undefined;
    return { certificate, publicKey: new X509Certificate(der).publicKey };
  }
}
