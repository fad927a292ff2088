import type { SignedStatements } from '../../common/signing/statement-signer.ts';
import { keyStatementsMax } from '../../common/wire/control-message.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { KeyStatements } from '../ports.ts';

export interface StatedEpoch {
  readonly stream: StreamId;
  readonly epoch: Epoch;
}

/**
 * Key statements on their way to one consumer. Those of an epoch that begins go at once; all of them, told with each
 * complete announcement, go one message after another, so that signing and sending them holds nothing else up. The
 * queue holds at most the epochs of the log.
 */
export class StatementSender {
  readonly #statements: KeyStatements | undefined;
  readonly #publish: (signed: SignedStatements) => Promise<boolean>;
  #queue: StatedEpoch[] = [];
  #isSending = false;

  /** `publish` hands over to the transport before it returns; false: there is no connection. */
  constructor(
    statements: KeyStatements | undefined,
    publish: (signed: SignedStatements) => Promise<boolean>,
  ) {
    this.#statements = statements;
    this.#publish = publish;
  }

  /** Before whatever is handed to the transport next. */
  sendNow(epochs: readonly StatedEpoch[]): void {
    for (let index = 0; index < epochs.length; index += keyStatementsMax) {
      void this.#send(epochs.slice(index, index + keyStatementsMax));
    }
  }

  /** The first message at once. What still waits of an earlier round is in this one again. */
  sendAll(epochs: readonly StatedEpoch[]): void {
    if (this.#statements === undefined) return;
    this.#queue = [...epochs];
    if (!this.#isSending) void this.#sendQueue();
  }

  clear(): void {
    this.#queue = [];
  }

  async #sendQueue(): Promise<void> {
    this.#isSending = true;
    while (this.#queue.length > 0) {
      // Without a connection whoever subscribes anew is told everything anew.
      if (!(await this.#send(this.#queue.splice(0, keyStatementsMax)))) this.#queue = [];
    }
    this.#isSending = false;
  }

  async #send(epochs: readonly StatedEpoch[]): Promise<boolean> {
    const known = this.#statements;
    if (known === undefined) return false;
    const claims = epochs.flatMap(({ stream, epoch }) => known.claimOf(stream, epoch) ?? []);
    if (claims.length === 0) return true;
    const signed = known.signer.sign(claims);
    return signed !== undefined && this.#publish(signed);
  }
}
