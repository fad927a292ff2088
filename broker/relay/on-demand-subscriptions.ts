import type { RelayStatus } from '../../common/control/relay-answer.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { SubscriptionRequest } from '../../common/site-control/subscription-endpoint.ts';
import type { Database } from '../../common/sqlite/database.ts';
import { streamKinds, type StreamId, type StreamKind } from '../../common/wire/frame.ts';
import { vmIdSchema } from '../../common/wire/vm-descriptor.ts';
import { streamKey } from '../stream-key.ts';
import { policyAllows, type StreamPolicy } from '../stream-policy.ts';
import type { RelayLog } from './relay-log.ts';

/** Stands for every VM; no VM has this id. */
const everyVm = '*';

interface Row {
  readonly relation: string;
  readonly vm: string;
  readonly kind: StreamKind;
  readonly hop_count: number;
  readonly expires_at_us: number;
}

type KnownSubscription = RelayStatus['subscriptions'][number];

/** What a request comes to; `unknown`: allowed, but these never came by here. */
export type SubscriptionVerdict =
  | { readonly outcome: 'subscribed' | 'already-relayed' | 'not-authorized' }
  | { readonly outcome: 'unknown'; readonly streams: readonly StreamId[] };

/**
 * What extra consumers asked for, durable, each until it is ended or was not asked for again within its life; what a
 * neighbour may ask for is its relation's policy. A wall clock that steps ahead ends some early; they are asked for again.
 * `migrateRelayLog` comes first.
 *
 *   asked of us by whom we get the stream from    already-relayed
 *   not in the policy                             not-authorized
 *   of a VM that never came by here               unknown
 *   else                                          subscribed, and again without change but for its life
 */
export class OnDemandSubscriptions {
  readonly #database: Database;
  readonly #clock: Clock;
  /** By relation towards the primary site: what it may have. */
  readonly #policies: ReadonlyMap<string, StreamPolicy>;
  readonly #lifeMs: number;
  /** By relation: when each stream, or that of every VM, ends. */
  readonly #asked = new Map<string, Map<string, number>>();
  #rows: readonly Row[] = [];

  constructor(
    deps: { readonly database: Database; readonly clock: Clock },
    options: {
      readonly policies: ReadonlyMap<string, StreamPolicy>;
      /** Of a subscription that is not asked for again. */
      readonly lifeMs: number;
    },
  ) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#policies = options.policies;
    this.#lifeMs = options.lifeMs;
    this.#load();
  }

  /**
   * Relays between here and the nearest reader that asked, this one not included; 0 when none did. The farthest one's would grow without
   * end where sites ask each other in a ring.
   */
  get hopCount(): number {
    const counts = this.#rows.map(({ hop_count: count }) => count);
    return counts.length === 0 ? 0 : Math.min(...counts);
  }

  /** What is there, each until its end. */
  list(): readonly KnownSubscription[] {
    return this.#rows.map(({ relation, vm, kind, expires_at_us: expiresAtUs }) => ({
      relation,
      vm: vm === everyVm ? null : vm,
      kind,
      expiresAtUs,
    }));
  }

  /** Whether the neighbour asked for the stream, and still wants it. */
  has(relation: string, stream: StreamId): boolean {
    const asked = this.#asked.get(relation);
    if (asked === undefined) return false;
    const nowUs = this.#clock.wallUs();
    return [stream.vm, everyVm].some((vm) => (asked.get(keyOf(vm, stream.kind)) ?? 0) > nowUs);
  }

  /** What anybody asked for, of those that `policy` allows. */
  wanted(policy: StreamPolicy): 'all' | readonly StreamId[] {
    if (this.#rows.some(({ vm }) => vm === everyVm)) return 'all';
    const streams = new Map(
      this.#rows
        .map(({ vm, kind }) => ({ vm: vmIdSchema.parse(vm), kind }))
        .map((stream) => [streamKey(stream), stream]),
    );
    return [...streams.values()].filter((stream) => policyAllows(policy, stream));
  }

  /** Changes nothing; `log` says what comes by here, and from whom. */
  judge(
    log: RelayLog,
    relation: string,
    { streams }: Pick<SubscriptionRequest, 'streams'>,
  ): SubscriptionVerdict {
    const epochs = log.epochs();
    const wanted = streams === 'all' ? undefined : new Set(streams.map((each) => streamKey(each)));
    const isLoop = epochs.some(
      ({ stream, epoch }) =>
        (wanted?.has(streamKey(stream)) ?? true) && log.sourceOf(stream, epoch) === relation,
    );
    if (isLoop) return { outcome: 'already-relayed' };
    const policy = this.#policies.get(relation);
    if (policy === undefined) return { outcome: 'not-authorized' };
    if (streams === 'all') return { outcome: 'subscribed' };
    if (!streams.every((stream) => policyAllows(policy, stream))) {
      return { outcome: 'not-authorized' };
    }
    const known = new Set(epochs.map(({ stream }) => streamKey(stream)));
    const unknown = streams.filter((stream) => !known.has(streamKey(stream)));
    return unknown.length === 0
      ? { outcome: 'subscribed' }
      : { outcome: 'unknown', streams: unknown };
  }

  /** Durable on return. Returns whether it is new, not only longer. */
  record(
    relation: string,
    { streams, hopCount }: Pick<SubscriptionRequest, 'streams' | 'hopCount'>,
  ): boolean {
    const expiresAtUs = this.#clock.wallUs() + this.#lifeMs * 1_000;
    const named = streams === 'all' ? streamKinds.map((kind) => ({ vm: everyVm, kind })) : streams;
    const insert = this.#database.prepare<[string, string, string, number, number]>(
      `INSERT INTO relay_subscriptions (relation, vm, kind, hop_count, expires_at_us)
       VALUES (?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET hop_count = excluded.hop_count, expires_at_us = excluded.expires_at_us`,
    );
    const write = this.#database.transaction(() => {
      for (const { vm, kind } of named) insert.run(relation, vm, kind, hopCount, expiresAtUs);
    });
    const before = this.#rows.length;
    write.immediate();
    this.#load();
    return this.#rows.length > before;
  }

  /** Ends what the neighbour asked for but `keep`. Returns whether that was something. */
  end(relation: string, keep: readonly StreamId[]): boolean {
    const kept = new Set(keep.map((stream) => streamKey(stream)));
    return this.#remove((row) => row.relation === relation && !kept.has(keyOf(row.vm, row.kind)));
  }

  /** Ends what was not asked for again in time. Returns whether there was something. */
  expire(): boolean {
    const nowUs = this.#clock.wallUs();
    return this.#remove(({ expires_at_us: expiresAtUs }) => expiresAtUs <= nowUs);
  }

  #remove(isOver: (row: Row) => boolean): boolean {
    const over = this.#rows.filter(isOver);
    if (over.length === 0) return false;
    const remove = this.#database.prepare<[string, string, string]>(
      'DELETE FROM relay_subscriptions WHERE relation = ? AND vm = ? AND kind = ?',
    );
    const write = this.#database.transaction(() => {
      for (const { relation, vm, kind } of over) remove.run(relation, vm, kind);
    });
    write.immediate();
    this.#load();
    return true;
  }

  /** Of relations that the configuration has no more nothing counts. */
  #load(): void {
    this.#rows = this.#database
      .prepare<[], Row>(
        'SELECT relation, vm, kind, hop_count, expires_at_us FROM relay_subscriptions',
      )
      .all()
      .filter(({ relation }) => this.#policies.has(relation));
    this.#asked.clear();
    for (const { relation, vm, kind, expires_at_us: expiresAtUs } of this.#rows) {
      const asked = this.#asked.get(relation) ?? new Map<string, number>();
      this.#asked.set(relation, asked.set(keyOf(vm, kind), expiresAtUs));
    }
  }
}

function keyOf(vm: string, kind: StreamKind): string {
  return `${vm}/${kind}`;
}
