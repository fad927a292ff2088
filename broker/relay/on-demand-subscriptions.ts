import type { SubscriptionRequest } from '../../common/site-control/subscription-endpoint.ts';
import type { Database } from '../../common/sqlite/database.ts';
import { streamKinds, type StreamId } from '../../common/wire/frame.ts';
import type { RelayLog } from './relay-log.ts';
import { policyAllows, type StreamPolicy } from './relay-options.ts';

/** Stands for every VM; no VM has this id. */
const everyVm = '*';

interface Row {
  readonly relation: string;
  readonly vm: string;
  readonly kind: string;
  readonly hop_count: number;
}

/**
 * What extra consumers asked for, durable; what a neighbour may ask for is its relation's policy.
 * `migrateRelayLog` comes first.
 *
 *   asked of us by whom we get the stream from    already-relayed
 *   by nobody's downstream, not in the policy,
 *   or of a VM that never came by here            not-authorized
 *   else                                          subscribed, and again without change
 */
export class OnDemandSubscriptions {
  readonly #database: Database;
  /** By relation towards the primary site: what it may have. */
  readonly #policies: ReadonlyMap<string, StreamPolicy>;
  /** By relation: stream keys, and those of every VM. */
  readonly #asked = new Map<string, Set<string>>();
  #hopCountMax = 0;

  constructor(deps: { readonly database: Database }, policies: ReadonlyMap<string, StreamPolicy>) {
    this.#database = deps.database;
    this.#policies = policies;
    this.#load();
  }

  /** Relays between here and the farthest reader that asked, this one not included. */
  get hopCountMax(): number {
    return this.#hopCountMax;
  }

  /** Whether the neighbour asked for the stream by now. */
  has(relation: string, stream: StreamId): boolean {
    const asked = this.#asked.get(relation);
    return (
      asked !== undefined &&
      (asked.has(keyOf(stream.vm, stream.kind)) || asked.has(keyOf(everyVm, stream.kind)))
    );
  }

  /** See SubscriptionKeeper; `log` says what comes by here, and from whom. */
  subscribe(
    log: RelayLog,
    relation: string,
    { streams, hopCount }: SubscriptionRequest,
  ): 'subscribed' | 'already-relayed' | 'not-authorized' {
    const epochs = log.epochs();
    const wanted =
      streams === 'all' ? undefined : new Set(streams.map(({ vm, kind }) => keyOf(vm, kind)));
    const isLoop = epochs.some(
      ({ stream, epoch }) =>
        (wanted?.has(keyOf(stream.vm, stream.kind)) ?? true) &&
        log.sourceOf(stream, epoch) === relation,
    );
    if (isLoop) return 'already-relayed';
    const policy = this.#policies.get(relation);
    const known = new Set(epochs.map(({ stream }) => keyOf(stream.vm, stream.kind)));
    const isAllowed =
      policy !== undefined &&
      (streams === 'all' ||
        streams.every(
          (stream) => known.has(keyOf(stream.vm, stream.kind)) && policyAllows(policy, stream),
        ));
    if (!isAllowed) return 'not-authorized';
    this.#write(
      relation,
      streams === 'all' ? streamKinds.map((kind) => ({ vm: everyVm, kind })) : streams,
      hopCount,
    );
    this.#load();
    return 'subscribed';
  }

  #write(
    relation: string,
    streams: readonly { readonly vm: string; readonly kind: string }[],
    hopCount: number,
  ): void {
    const insert = this.#database.prepare<[string, string, string, number]>(
      `INSERT INTO relay_subscriptions VALUES (?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET hop_count = excluded.hop_count`,
    );
    const write = this.#database.transaction(() => {
      for (const { vm, kind } of streams) insert.run(relation, vm, kind, hopCount);
    });
    write.immediate();
  }

  /** Of relations that the configuration has no more nothing counts. */
  #load(): void {
    const rows = this.#database
      .prepare<[], Row>('SELECT relation, vm, kind, hop_count FROM relay_subscriptions')
      .all()
      .filter(({ relation }) => this.#policies.has(relation));
    this.#asked.clear();
    for (const { relation, vm, kind } of rows) {
      const asked = this.#asked.get(relation) ?? new Set();
      this.#asked.set(relation, asked.add(keyOf(vm, kind)));
    }
    this.#hopCountMax = Math.max(0, ...rows.map(({ hop_count: count }) => count));
  }
}

function keyOf(vm: string, kind: string): string {
  return `${vm}/${kind}`;
}
