import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Service } from '../../common/runtime/service.ts';
import type { SiteControlClient } from '../../common/site-control/site-control-client.ts';
import { subscriptionEndpoint } from '../../common/site-control/subscription-endpoint.ts';
import { streamKinds } from '../../common/wire/frame.ts';
import type { VmId } from '../../common/wire/vm-descriptor.ts';

export interface SubscriptionAskerOptions {
  readonly relation: string;
  readonly vms: 'all' | readonly VmId[];
  /** Relays between this site and the farthest reader, this one included. */
  readonly hopCount: () => number;
  /** After an answer that is no `subscribed`, ms: a VM may not have come by there yet. */
  readonly retryIntervalMs: number;
  /** After `subscribed`, ms: the neighbour may have lost its disk. */
  readonly repeatIntervalMs: number;
}

export const subscriptionAskerDefaults = {
  retryIntervalMs: 10_000,
  repeatIntervalMs: 600_000,
} as const;

/** Asks one neighbour for streams on demand, until it has subscribed us, and now and then again. */
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
    this.#asking = this.#ask();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#cancel();
    this.#stopping.abort();
    await this.#asking;
  }

  async #ask(): Promise<void> {
    const { clock } = this.#deps;
    const { retryIntervalMs, repeatIntervalMs } = this.#options;
    const isSubscribed = await this.#askOnce();
    if (this.#stopping.signal.aborted) return;
    this.#cancel = clock.after(isSubscribed ? repeatIntervalMs : retryIntervalMs, () => {
      this.#asking = this.#ask();
    });
  }

  async #askOnce(): Promise<boolean> {
    const { log, client } = this.#deps;
    const { relation, vms, hopCount } = this.#options;
    const streams =
      vms === 'all' ? vms : vms.flatMap((vm) => streamKinds.map((kind) => ({ vm, kind })));
    try {
      const { outcome } = await client.call(
        subscriptionEndpoint,
        { kind: 'on-demand', streams, hopCount: hopCount() },
        this.#stopping.signal,
      );
      log.info('subscription-answered', { relation, outcome });
      return outcome === 'subscribed';
    } catch (error) {
      if (this.#stopping.signal.aborted) return false;
      const cause = error instanceof OperatingError ? error.message : String(error);
      log.warn('subscription-unanswered', { relation, cause });
      return false;
    }
  }
}
