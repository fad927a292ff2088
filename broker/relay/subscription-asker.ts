import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Service } from '../../common/runtime/service.ts';
import type { SiteControlClient } from '../../common/site-control/site-control-client.ts';
import {
  subscriptionEndEndpoint,
  subscriptionEndpoint,
  type SubscriptionAnswer,
} from '../../common/site-control/subscription-endpoint.ts';
import type { StreamId } from '../../common/wire/frame.ts';

export interface SubscriptionAskerOptions {
  readonly relation: string;
  /** What is wanted of the neighbour now: what it was asked for earlier and is not in it is ended. */
  readonly wanted: () => 'all' | readonly StreamId[];
  /** Relays between this site and the farthest reader, this one included. */
  readonly hopCount: () => number;
  /** After an answer that is no `subscribed`, ms, then twice as long up to the maximum: a VM may not have come by there yet. */
  readonly retryIntervalMs: number;
  readonly retryIntervalMsMax: number;
  /** After `subscribed`, ms, or a third of the subscription's life if that is less. */
  readonly repeatIntervalMs: number;
}

export const subscriptionAskerDefaults = {
  retryIntervalMs: 1_000,
  retryIntervalMsMax: 10_000,
  repeatIntervalMs: 600_000,
} as const;

type Answer = SubscriptionAnswer | { readonly outcome: 'unanswered'; readonly lifeMs?: undefined };

/**
 * Asks one neighbour for streams on demand, until it has subscribed us, and again before that ends; what is wanted no
 * longer it ends.
 */
export class SubscriptionAsker implements Service {
  readonly name: string;
  readonly #deps: {
    readonly clock: Clock;
    readonly log: Log;
    readonly client: SiteControlClient;
  };
  readonly #options: SubscriptionAskerOptions;
  readonly #stopping = new AbortController();
  #asking: Promise<void> = Promise.resolve();
  #isAsking = false;
  #isStale = false;
  #failedAttempts = 0;
  #cancel: Cancel = () => {};

  constructor(
    deps: { readonly clock: Clock; readonly log: Log; readonly client: SiteControlClient },
    options: SubscriptionAskerOptions,
  ) {
    this.name = `subscription-asker ${options.relation}`;
    this.#deps = deps;
    this.#options = options;
  }

  start(): Promise<void> {
    this.refresh();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#cancel();
    await this.#asking;
  }

  /** Something else is wanted: asks at once. */
  refresh(): void {
    if (this.#stopping.signal.aborted) return;
    this.#isStale = true;
    if (this.#isAsking) return;
    this.#cancel();
    this.#asking = this.#ask();
  }

  /** One request; never rejects. */
  async request(
    streams: 'all' | readonly StreamId[],
    hopCount: number,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { log, client } = this.#deps;
    const { relation } = this.#options;
    try {
      const answer = await client.call(
        subscriptionEndpoint,
        { kind: 'on-demand', streams: streams === 'all' ? 'all' : [...streams], hopCount },
        AbortSignal.any([signal, this.#stopping.signal]),
      );
      log.info('subscription-answered', { relation, outcome: answer.outcome });
      return answer;
    } catch (error) {
      if (!signal.aborted && !this.#stopping.signal.aborted) {
        log.warn('subscription-unanswered', { relation, cause: causeOf(error) });
      }
      return { outcome: 'unanswered' };
    }
  }

  async #ask(): Promise<void> {
    const { clock } = this.#deps;
    const { retryIntervalMs, retryIntervalMsMax, repeatIntervalMs } = this.#options;
    this.#isAsking = true;
    let answer: Answer = { outcome: 'unanswered' };
    while (this.#isStale && !this.#stopping.signal.aborted) {
      this.#isStale = false;
      const wanted = this.#options.wanted();
      answer = await this.#askFor(wanted);
      if (wanted !== 'all' && !(await this.#endAllBut(wanted))) answer = { outcome: 'unanswered' };
    }
    this.#isAsking = false;
    if (this.#stopping.signal.aborted) return;
    const isSubscribed = answer.outcome === 'subscribed';
    const retryMs = Math.min(retryIntervalMs * 2 ** this.#failedAttempts, retryIntervalMsMax);
    this.#failedAttempts = isSubscribed ? 0 : Math.min(this.#failedAttempts + 1, 16);
    const delayMs = isSubscribed
      ? Math.min(repeatIntervalMs, (answer.lifeMs ?? Number.POSITIVE_INFINITY) / 3)
      : retryMs;
    this.#cancel = clock.after(delayMs, () => {
      this.refresh();
    });
  }

  /** A VM that is not there yet keeps no other from coming: after a refusal each is asked for by itself. */
  async #askFor(wanted: 'all' | readonly StreamId[]): Promise<Answer> {
    if (wanted.length === 0) return { outcome: 'subscribed' };
    const { signal } = this.#stopping;
    const together = await this.request(wanted, this.#options.hopCount(), signal);
    if (wanted === 'all' || together.outcome !== 'not-authorized') return together;
    const vms = [...new Set(wanted.map(({ vm }) => vm))];
    if (vms.length === 1) return together;
    let answer: Answer | undefined;
    for (const vm of vms) {
      const streams = wanted.filter((stream) => stream.vm === vm);
      const alone = await this.request(streams, this.#options.hopCount(), signal);
      if (answer === undefined || alone.outcome !== 'subscribed') answer = alone;
    }
    return answer ?? together;
  }

  async #endAllBut(keep: readonly StreamId[]): Promise<boolean> {
    const { log, client } = this.#deps;
    try {
      await client.call(subscriptionEndEndpoint, { keep: [...keep] }, this.#stopping.signal);
      return true;
    } catch (error) {
      if (!this.#stopping.signal.aborted) {
        const { relation } = this.#options;
        log.warn('subscription-end-unanswered', { relation, cause: causeOf(error) });
      }
      return false;
    }
  }
}

function causeOf(error: unknown): string {
  return error instanceof OperatingError ? error.message : String(error);
}
