import { X509Certificate } from 'node:crypto';

import type { TlsIdentity } from '../identity/tls-identity.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { StageCounters } from '../runtime/stage-counters.ts';
import { TokenBucket, type Quota } from '../runtime/token-bucket.ts';
import { verifyStatement, type KeyStatement, type VerifiedClaim } from './key-statement.ts';
import type { SignedStatements } from './statement-signer.ts';

/** Where verified claims are kept. The first claim of an epoch counts. */
export interface ClaimStore {
  /** Whether exactly this was accepted before: then nothing has to be verified again. */
  isKnown(statement: KeyStatement): boolean;
  /** Makes it durable. False when another key was stated before: the store has counted and recorded that. */
  accept(claim: VerifiedClaim): boolean;
}

/**
 * Signatures of one neighbour that are verified: below a tenth of a core's time in the long run. A site of thousands of
 * epochs that is met for the first time is within the burst.
 */
export const verificationQuotaDefault: Quota = { burst: 16_384, perSecond: 500 };

/**
 * What the neighbour of one relation states, judged by the authority that was pinned for it: the certificate must be one
 * for signing that is valid now, of that neighbour and of no other. What is refused, or beyond the quota, comes again with the
 * neighbour's next repetition.
 */
export class StatementVerifier {
  /** Statements; `dropped` were known, `failed` are not the neighbour's, contradict an earlier one, or are too many. */
  readonly counters = new StageCounters();
  readonly #deps: {
    readonly identity: TlsIdentity;
    readonly store: ClaimStore;
    readonly clock: Clock;
    readonly log: Log;
  };
  readonly #relation: string;
  readonly #bucket: TokenBucket;

  constructor(
    deps: {
      readonly identity: TlsIdentity;
      readonly store: ClaimStore;
      readonly clock: Clock;
      readonly log: Log;
    },
    relation: string,
    quota: Quota = verificationQuotaDefault,
  ) {
    this.#deps = deps;
    this.#relation = relation;
    this.#bucket = new TokenBucket(quota, deps.clock.monotonicMs());
  }

  /** The claims that are new here, and kept. Never throws: what a disk did not take is stated again. */
  take(signed: SignedStatements): readonly VerifiedClaim[] {
    try {
      return this.#take(signed);
    } catch (cause) {
      this.counters.failed =
        this.counters.accepted - this.counters.forwarded - this.counters.dropped;
      const relation = this.#relation;
      this.#deps.log.error('key-statements-not-kept', { relation, cause: String(cause) });
      return [];
    }
  }

  #take({ certificate, statements }: SignedStatements): readonly VerifiedClaim[] {
    const unknown = statements.filter((statement) => !this.#deps.store.isKnown(statement));
    const knownCount = statements.length - unknown.length;
    this.counters.accepted += statements.length;
    this.counters.dropped += knownCount;
    if (unknown.length === 0) return [];
    const der = Buffer.from(certificate, 'base64');
    if (this.#deps.identity.relationOf(der, 'signing') !== this.#relation) {
      this.counters.failed += unknown.length;
      this.#warn('wrong-certificate', unknown.length);
      return [];
    }
    const { publicKey } = new X509Certificate(der);
    const nowMs = this.#deps.clock.monotonicMs();
    const judged = unknown.filter(() => this.#bucket.take(nowMs));
    if (judged.length < unknown.length) {
      this.counters.failed += unknown.length - judged.length;
      this.#warn('too-many', unknown.length - judged.length);
    }
    return judged.flatMap((statement) => {
      const outcome = verifyStatement(statement, publicKey);
      if (outcome.ok && this.#deps.store.accept(outcome.claim)) {
        this.counters.forwarded += 1;
        return [outcome.claim];
      }
      this.counters.failed += 1;
      this.#warn(outcome.ok ? 'contradicting' : outcome.code, 1);
      return [];
    });
  }

  #warn(code: string, statementCount: number): void {
    const relation = this.#relation;
    this.#deps.log.warn('key-statements-refused', { relation, code, statementCount });
  }
}
