import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Service } from '../../common/runtime/service.ts';
import type {
  SubscriptionAnswer,
  SubscriptionKeeper,
  SubscriptionOutcome,
  SubscriptionRequest,
} from '../../common/site-control/subscription-endpoint.ts';
import type { StreamId } from '../../common/wire/frame.ts';
import { streamKey } from '../stream-key.ts';
import { policyAllows, type StreamPolicy } from '../stream-policy.ts';
import type { OnDemandSubscriptions } from './on-demand-subscriptions.ts';
import type { Relay } from './relay.ts';
import type { SubscriptionAsker } from './subscription-asker.ts';

/** A neighbour towards the VM that is asked for what our own neighbours ask of us. */
export interface PassedOn {
  readonly may: StreamPolicy;
  readonly asker: SubscriptionAsker;
}

/**
 * Answers neighbours that ask for streams. What never came by here is asked for upstream first, with one hop more, and
 * the answer there is the answer here. What nobody wants any more is ended upstream too.
 *
 *   neighbour --subscribe--> judged --unknown--> asked for upstream --subscribed--> recorded, announced
 *             --end, or silence for its life--> gone --nobody else asked--> ended upstream
 */
export class RelaySubscriptions implements SubscriptionKeeper, Service {
  readonly name = 'subscriptions';
  readonly #deps: {
    readonly clock: Clock;
    readonly subscriptions: OnDemandSubscriptions;
    readonly relay: Relay;
  };
  readonly #options: { readonly lifeMs: number; readonly checkIntervalMs: number };
  /** Streams that are being asked for upstream, with the hops of whoever asked first. */
  readonly #passing = new Map<string, number>();
  #upstream: readonly PassedOn[] = [];
  #cancel: Cancel = () => {};

  constructor(
    deps: {
      readonly clock: Clock;
      readonly subscriptions: OnDemandSubscriptions;
      readonly relay: Relay;
    },
    options: {
      readonly lifeMs: number;
      /** How often it is looked what is over. */
      readonly checkIntervalMs: number;
    },
  ) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Whom to ask; once, before the start. */
  passTo(upstream: readonly PassedOn[]): void {
    this.#upstream = upstream;
  }

  start(): Promise<void> {
    this.#cancel = this.#deps.clock.every(this.#options.checkIntervalMs, () => {
      if (this.#deps.subscriptions.expire()) this.#refresh();
    });
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#cancel();
    return Promise.resolve();
  }

  async subscribe(
    relation: string,
    request: SubscriptionRequest,
    signal: AbortSignal,
  ): Promise<SubscriptionAnswer> {
    const { subscriptions, relay } = this.#deps;
    const verdict = subscriptions.judge(relay.log, relation, request);
    const outcome =
      verdict.outcome === 'unknown'
        ? await this.#passOn(verdict.streams, request.hopCount, signal)
        : verdict.outcome;
    if (outcome !== 'subscribed') return { outcome };
    if (subscriptions.record(relation, request)) {
      relay.announce(relation);
      this.#refresh();
    }
    return { outcome, lifeMs: this.#options.lifeMs };
  }

  end(relation: string, keep: readonly StreamId[]): void {
    if (this.#deps.subscriptions.end(relation, keep)) this.#refresh();
  }

  #refresh(): void {
    for (const { asker } of this.#upstream) asker.refresh();
  }

  /** A request that comes back with more hops, while it is under way, has gone round a loop. */
  async #passOn(
    streams: readonly StreamId[],
    hopCount: number,
    signal: AbortSignal,
  ): Promise<SubscriptionOutcome> {
    const keys = streams.map((stream) => streamKey(stream));
    if (keys.some((key) => (this.#passing.get(key) ?? hopCount) < hopCount)) {
      return 'already-relayed';
    }
    const own = keys.filter((key) => !this.#passing.has(key));
    for (const key of own) this.#passing.set(key, hopCount);
    try {
      for (const vm of new Set(streams.map((stream) => stream.vm))) {
        const ofVm = streams.filter((stream) => stream.vm === vm);
        const outcome = await this.#passOnVm(ofVm, hopCount, signal);
        if (outcome !== 'subscribed') return outcome;
      }
      return 'subscribed';
    } finally {
      for (const key of own) this.#passing.delete(key);
    }
  }

  /** The first that has it; else the refusal that tells most. */
  async #passOnVm(
    streams: readonly StreamId[],
    hopCount: number,
    signal: AbortSignal,
  ): Promise<SubscriptionOutcome> {
    let refusal: SubscriptionOutcome = 'not-authorized';
    for (const { may, asker } of this.#upstream) {
      if (!streams.every((stream) => policyAllows(may, stream))) continue;
      const { outcome } = await asker.request(streams, hopCount + 1, signal);
      if (outcome === 'subscribed') return outcome;
      if (outcome === 'already-relayed' || outcome === 'hop-limit') refusal = outcome;
    }
    return refusal;
  }
}
