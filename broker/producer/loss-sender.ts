import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import type { DeclaredLosses, LossSigner } from '../../common/signing/loss-signer.ts';
import { controlEntriesMax, lossesMax } from '../../common/wire/control-message.ts';
import { lossReasonTexts } from '../../common/wire/loss-reason.ts';
import type { LostRange } from '../log/frame-log.ts';
import type { QueriedRange } from './range-queries.ts';

/** Parts of a range as `range-end` names them. */
export interface EndedRange {
  readonly fromSeq: number;
  readonly throughSeq: number;
  readonly reason: string;
}

/**
 * What is lost, on its way to one consumer: under this site's own signature, whoever declared it. Told when it is
 * declared, for a reader that asked before or does not ask, and with each answer that lacks it, for one that comes later.
 */
export class LossSender {
  readonly #signer: LossSigner;
  readonly #send: (declared: DeclaredLosses) => void;

  constructor(signer: LossSigner, send: (declared: DeclaredLosses) => void) {
    this.#signer = signer;
    this.#send = send;
  }

  declare(claims: readonly LossClaim[]): void {
    for (let index = 0; index < claims.length; index += lossesMax) {
      this.#send(this.#signer.declare(claims.slice(index, index + lossesMax)));
    }
  }

  /** Before the end of the answer that lacks them; returns what that names: the rest is asked for again. */
  answer(queried: QueriedRange, lost: readonly LostRange[]): EndedRange[] {
    const { stream, epoch } = queried;
    const named = lost.slice(0, controlEntriesMax);
    this.declare(named.map((range) => ({ stream, epoch, ...range })));
    return named.map(({ fromSeq, throughSeq, reason }) => ({
      fromSeq: Math.max(fromSeq, queried.fromSeq),
      throughSeq: Math.min(throughSeq, queried.throughSeq),
      reason: lossReasonTexts[reason],
    }));
  }
}
