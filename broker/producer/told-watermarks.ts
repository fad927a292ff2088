import { isDiskRefusal } from '../../common/sqlite/database.ts';
import { controlEntriesMax, type StoredMessage } from '../../common/wire/control-message.ts';
import { epochKey } from '../stream-key.ts';
import type { ProducerDeps } from './producer-options.ts';

/**
 * The watermarks that a consumer has told since they were last made durable. A cursor that lags behind after a crash only
 * keeps frames for longer, so they wait for the next {@link write}; more than `controlEntriesMax` are written at once.
 */
export class ToldWatermarks {
  readonly #deps: Pick<ProducerDeps, 'cursors' | 'log'>;
  readonly #relation: string;
  readonly #messages = new Map<string, StoredMessage>();

  constructor(deps: Pick<ProducerDeps, 'cursors' | 'log'>, relation: string) {
    this.#deps = deps;
    this.#relation = relation;
  }

  note(message: StoredMessage): void {
    for (const watermark of message.watermarks) {
      const key = `${message.by} ${epochKey(watermark.stream, watermark.epoch)}`;
      this.#messages.set(key, { ...message, watermarks: [watermark] });
    }
    if (this.#messages.size > controlEntriesMax) this.write();
  }

  /**
   * Makes them durable. What the disk refuses waits for the next time; beyond the bound it is dropped, as the consumer
   * tells it again with what it stores next.
   */
  write(): void {
    if (this.#messages.size === 0) return;
    try {
      this.#advance();
      this.clear();
    } catch (cause) {
      if (!isDiskRefusal(cause)) throw cause;
      const relation = this.#relation;
      this.#deps.log.error('watermarks-not-written', { relation, cause: String(cause) });
      if (this.#messages.size > controlEntriesMax) this.clear();
    }
  }

  clear(): void {
    this.#messages.clear();
  }

  #advance(): void {
    const messages = [...this.#messages.values()];
    for (const by of ['next-hop', 'final-reader'] as const) {
      const told = messages.filter((message) => message.by === by);
      const watermarks = told.flatMap((message) => message.watermarks);
      this.#deps.cursors.advance(this.#relation, by, watermarks);
    }
  }
}
