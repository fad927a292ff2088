import type { SigningIdentity, TlsIdentity } from '../../common/identity/tls-identity.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { PruningService } from '../../common/runtime/pruning-service.ts';
import type { Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import { LossJudge } from '../../common/signing/loss-judge.ts';
import { LossSigner } from '../../common/signing/loss-signer.ts';
import { StatementSigner } from '../../common/signing/statement-signer.ts';
import { StatementVerifier } from '../../common/signing/statement-verifier.ts';
import { isDatabaseCorrupt, type Database } from '../../common/sqlite/database.ts';
import { WalSync } from '../../common/sqlite/wal-sync.ts';
import type { EncodedFrame, Epoch, StreamId } from '../../common/wire/frame.ts';
import type {
  ConsumerOptions,
  EpochRefusal,
  RelayHooks,
  Watermark,
} from '../consumer/consumer-options.ts';
import { Consumer } from '../consumer/consumer.ts';
import type { FrameLog } from '../log/frame-log.ts';
import { LogCursors, type MayHave } from '../log/log-cursors.ts';
import { LogRetention, type LogRetentionOptions } from '../log/log-retention.ts';
import type { FrameSink, KeyStatements, LostFrames } from '../ports.ts';
import { byTransport, type ProducerOptions } from '../producer/producer-options.ts';
import { Producer } from '../producer/producer.ts';
import type { DelayCounts } from '../quota/byte-quotas.ts';
import type { ByteQuota } from '../quota/fair-share.ts';
import type { SeqRange } from '../range-set.ts';
import { streamKey } from '../stream-key.ts';
import { policyAllows } from '../stream-policy.ts';
import { FinalWatermarks } from './final-watermarks.ts';
import { RelayLog } from './relay-log.ts';
import { getsStream, type DownstreamLink, type UpstreamLink } from './relay-options.ts';
import { RelayedKeys } from './relayed-keys.ts';
import { UpstreamBounds } from './upstream-bounds.ts';

/** Of the log's size, what is fetched again at a time for one query, so that it does not push out what else is there. */
const fetchedAgainRatio = 0.25;

export interface RelayOptions {
  /** `intervalMs`: a pass looks for what is too old or too much; retention has slack for what comes in between. */
  readonly retention: LogRetentionOptions & { readonly intervalMs: number };
  /** Of all neighbours towards the VMs together. */
  readonly siteQuota: ByteQuota;
  readonly consumer: Omit<ConsumerOptions, 'relation' | 'storedBy'>;
  readonly producer: Omit<ProducerOptions, 'relations'>;
}

export interface RelayDeps {
  /** At `synchronous` NORMAL: what is acknowledged was synced beside it. `migrateRelayLog` comes first. */
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Whom we trust, and what we sign with; absent: key statements are neither taken nor made. */
  readonly trust?: TlsIdentity & SigningIdentity;
  /** The database is damaged: nothing can be stored any more. */
  readonly onCorrupt: (cause: unknown) => void;
}

/**
 * A site between a VM and its primary site: consumer of the neighbours towards the VM, producer for those towards the
 * primary site. It forwards a live frame at once, then stores it, then acknowledges it; it never numbers, splits or
 * merges. What it missed it asks for upstream, and offers downstream once it has it.
 *
 *   neighbour --live--> Consumer --forward--> Producer(s) --live--> neighbour
 *                          |                      ^
 *                          '--store--> RelayLog --'  available, ranges
 *   neighbour <--what made room here, again-- fetchAgain <-- query
 *   neighbour --declared lost--> judged, RelayLog --> declared under our own signature --> neighbour
 *   neighbour --key statement--> verified, RelayedKeys --> countersigned --key statement--> neighbour
 *   neighbour <--stored by the next hop-- (commit, fdatasync)
 *   neighbour <--stored by the final reader-- FinalWatermarks <-- neighbour
 */
export class Relay implements Service {
  readonly name = 'relay';
  readonly log: RelayLog;
  readonly #deps: RelayDeps;
  readonly #upstream: readonly UpstreamLink[];
  readonly #walSync: WalSync;
  readonly #keys: RelayedKeys;
  readonly #verifiers = new Map<string, StatementVerifier>();
  readonly #bounds: UpstreamBounds;
  readonly #judges = new Map<string, LossJudge>();
  readonly #finals: FinalWatermarks;
  readonly #retention: LogRetention;
  readonly #fetchedAgainBytes: number;
  readonly #producers: readonly Producer[];
  readonly #consumers: ReadonlyMap<string, Consumer>;
  readonly #services: ServiceGroup;
  /** Live frames that were handed on when they came. */
  readonly #forwarded = new WeakSet<EncodedFrame>();

  constructor(
    deps: RelayDeps,
    options: RelayOptions,
    links: {
      readonly upstream: readonly UpstreamLink[];
      readonly downstream: readonly DownstreamLink[];
    },
  ) {
    const { database, clock } = deps;
    const { upstream, downstream } = links;
    this.#deps = deps;
    this.#upstream = upstream;
    this.log = new RelayLog(deps);
    this.#walSync = new WalSync(database.name);
    this.#keys = new RelayedKeys(database);
    const statements = statementsOf(this.#keys, deps.trust);
    const losses = new LossSigner(deps.trust);
    const allows = (relation: string, stream: StreamId): boolean =>
      downstream.some((link) => link.relation === relation && getsStream(link, stream));
    const cursors = new LogCursors({ database, clock, mayHave: allows });
    this.#finals = new FinalWatermarks(
      {
        cursors: standingCursorsOf(deps, downstream, allows),
        knows: (...place) => this.log.knows(...place),
        onRaised: (watermark) => {
          this.#reportFinal(watermark);
        },
      },
      downstream,
    );
    this.#producers = byTransport(downstream).map(
      ([transport, relations]) =>
        new Producer(
          {
            ...deps,
            transport,
            streamLog: this.#readLog(),
            cursors,
            allows,
            losses,
            ...statements,
            onStored: (relation, message) => {
              this.#finals.note(relation, message);
            },
          },
          { ...options.producer, relations },
        ),
    );
    const onEvicted = (): void => {
      this.#forget();
    };
    this.#bounds = new UpstreamBounds({ ...deps, onEvicted }, options.siteQuota, upstream);
    this.#consumers = new Map(
      upstream.map((link) => [link.relation, this.#consumerOf(link, options.consumer)]),
    );
    const isWanted = (stream: StreamId): boolean =>
      downstream.some((link) => getsStream(link, stream));
    const givenUp = this.log.evicted;
    this.#retention = new LogRetention(
      { database, clock, cursors, isWanted, givenUp },
      { ...options.retention, givesUp: 'newest' },
    );
    this.#fetchedAgainBytes = options.retention.bytesMax * fetchedAgainRatio;
    this.#services = new ServiceGroup('relay', [
      this.#pruning(options.retention.intervalMs),
      ...new Set([...upstream, ...downstream].map(({ transport }) => transport)),
      ...this.#producers,
      ...this.#consumers.values(),
    ]);
  }

  start(): Promise<void> {
    return this.#services.start();
  }

  async stop(): Promise<void> {
    await this.#services.stop();
    await this.#walSync.close();
  }

  /** Of a neighbour towards the VM: it answers. Of one towards the primary site: it has a session. */
  isLive(relation: string): boolean {
    const consumer = this.#consumers.get(relation);
    if (consumer !== undefined) return consumer.isLive;
    return this.#producers.some((producer) => producer.hasSession(relation));
  }

  /** See {@link UpstreamBounds.delays}. */
  delays(relation: string, vm?: string): DelayCounts | null {
    return this.#bounds.delays(relation, vm);
  }

  /** A neighbour may have more than before: it hears of all that there is. */
  announce(relation: string): void {
    for (const producer of this.#producers) producer.announce(relation);
  }

  /** Frames in the log, bytes. */
  logBytes(): number {
    return this.#retention.logBytes();
  }

  stages(): Record<string, StageCounts> {
    const consumers = [...this.#consumers].map(
      ([relation, consumer]) => [`consumer/${relation}`, consumer.counters.snapshot()] as const,
    );
    const producers = this.#producers.map(
      (producer, index) =>
        [index === 0 ? 'producer' : `producer/${index}`, producer.counters.snapshot()] as const,
    );
    const statements = [...this.#verifiers].map(
      ([relation, verifier]) => [`statements/${relation}`, verifier.counters.snapshot()] as const,
    );
    const losses = [...this.#judges].map(
      ([relation, judge]) => [`losses/${relation}`, judge.counters.snapshot()] as const,
    );
    return Object.fromEntries([...consumers, ...producers, ...statements, ...losses]);
  }

  #consumerOf(link: UpstreamLink, options: RelayOptions['consumer']): Consumer {
    const { relation, transport, may } = link;
    const relaying: RelayHooks = {
      refusalOf: (stream, epoch) =>
        policyAllows(may, stream) ? this.#claim(relation, stream, epoch) : 'not-allowed',
      forward: (frames) => {
        for (const frame of frames) this.#forwarded.add(frame);
        for (const producer of this.#producers) producer.forward(frames);
      },
      stated: (epochs) => {
        for (const producer of this.#producers) producer.state(epochs);
      },
      finalWatermarks: () =>
        this.#finals
          .all()
          .filter(({ stream, epoch }) => this.log.sourceOf(stream, epoch) === relation),
    };
    const sink: FrameSink = {
      store: (frames) => this.#store(frames),
      declareLost: (stream, lost) => this.#declareLost(stream, lost),
      stored: (stream) => this.log.stored(stream),
    };
    const { trust, log } = this.#deps;
    const quotas = this.#bounds.bytesOf(relation);
    const bounded = quotas === undefined ? {} : { quotas };
    if (trust === undefined) {
      const deps = { ...this.#deps, transport, sink, relaying, ...bounded };
      return new Consumer(deps, { ...options, relation, storedBy: 'next-hop' });
    }
    const statements = new StatementVerifier(
      { ...this.#deps, identity: trust, store: this.#keys },
      relation,
    );
    this.#verifiers.set(relation, statements);
    const losses = new LossJudge(
      {
        identity: trust,
        onRefused: ({ stream, epoch, fromSeq, throughSeq }, code) => {
          const place = { stream: streamKey(stream), epoch: epoch.number, fromSeq, throughSeq };
          log.warn('loss-refused', { relation, code, ...place });
        },
      },
      { relation, isRequired: true },
    );
    this.#judges.set(relation, losses);
    return new Consumer(
      { ...this.#deps, transport, sink, relaying, statements, losses, ...bounded },
      { ...options, relation, storedBy: 'next-hop' },
    );
  }

  /** A disk that takes nothing must not keep frames that are under way from being handed on. */
  #claim(relation: string, stream: StreamId, epoch: Epoch): EpochRefusal | undefined {
    try {
      const isNew = !this.log.knows(stream, epoch);
      if (isNew && !this.#bounds.admits(relation, stream.vm)) return 'too-many';
      return this.log.claim(relation, stream, epoch) ? undefined : 'already-relayed';
    } catch (cause) {
      this.#deps.log.error('epoch-not-recorded', { relation, cause: String(cause) });
      return this.#upstream.length === 1 ? undefined : 'already-relayed';
    }
  }

  /** Whole epochs are gone from the log. */
  #forget(): void {
    this.log.forget();
    this.#finals.forget();
  }

  #reportFinal(watermark: Watermark): void {
    const source = this.log.sourceOf(watermark.stream, watermark.epoch);
    if (source !== undefined) this.#consumers.get(source)?.reportFinal(watermark);
  }

  #pruning(intervalMs: number): Service {
    return new PruningService(this.#deps, {
      name: 'log-retention',
      intervalMs,
      prune: () => this.#prune(),
    });
  }

  #prune(): boolean {
    const { lostFrames, more } = this.#endIfCorrupt(() => this.#retention.prune());
    // Empty epochs may have been dropped though no frame was pruned.
    this.#forget();
    if (lostFrames > 0) this.#deps.log.warn('log-frames-evicted', { frameCount: lostFrames });
    return more;
  }

  /** The log for producers, whose reads may be the first to meet damage. */
  #readLog(): FrameLog {
    return {
      epochs: () => this.#endIfCorrupt(() => this.log.epochs()),
      read: (...range) => this.#endIfCorrupt(() => this.log.read(...range)),
      lostIn: (...range) =>
        this.#endIfCorrupt(() => {
          this.#fetchAgain(...range);
          return this.log.lostIn(...range);
        }),
    };
  }

  /**
   * What is asked for and was here may still be at the neighbour that it came from: it is fetched again, in pieces, each
   * offered downstream as it comes. Where that neighbour is none any more it is lost.
   */
  #fetchAgain(stream: StreamId, epoch: Epoch, range: SeqRange): void {
    const source = this.log.sourceOf(stream, epoch);
    const consumer = source === undefined ? undefined : this.#consumers.get(source);
    if (consumer === undefined) {
      this.log.giveUp(stream, epoch, range);
      return;
    }
    const gone = this.log.goneIn(stream, epoch, range, this.#fetchedAgainBytes);
    if (gone.length > 0) consumer.fetchAgain(stream, epoch, gone);
  }

  async #declareLost(stream: StreamId, lost: LostFrames): Promise<void> {
    const claims = this.#endIfCorrupt(() => this.log.declareLost(stream, lost));
    await this.#walSync.sync();
    for (const producer of this.#producers) producer.declareLost(claims);
  }

  /** Damage that is met in use: the next start sets the file aside, so the process must not go on with it. */
  #endIfCorrupt<Result>(use: () => Result): Result {
    try {
      return use();
    } catch (cause) {
      if (isDatabaseCorrupt(cause)) this.#deps.onCorrupt(cause);
      throw cause;
    }
  }

  async #store(frames: readonly EncodedFrame[]): Promise<void> {
    const returned = this.#endIfCorrupt(() => this.log.store(frames));
    for (const { stream, epoch, ...rest } of returned) {
      const place = { stream: streamKey(stream), epoch: epoch.number };
      this.#deps.log.info('loss-withdrawn', { ...place, ...rest });
    }
    for (const producer of this.#producers) {
      producer.committed(frames, (frame) => this.#forwarded.has(frame));
    }
    await this.#walSync.sync();
  }
}

/** Of the neighbours on the way to the primary site alone. */
function standingCursorsOf(
  { database, clock }: RelayDeps,
  downstream: readonly DownstreamLink[],
  allows: MayHave,
): LogCursors {
  const isStanding = new Set(
    downstream.filter((link) => link.isStanding).map(({ relation }) => relation),
  );
  return new LogCursors({
    database,
    clock,
    mayHave: (relation, stream) => isStanding.has(relation) && allows(relation, stream),
  });
}

/** What neighbours towards the primary site are told, under our own signature; nothing without one. */
function statementsOf(
  keys: RelayedKeys,
  trust: RelayDeps['trust'],
): { readonly statements?: KeyStatements } {
  if (trust === undefined) return {};
  const signer = new StatementSigner(trust);
  return { statements: { claimOf: (stream, epoch) => keys.claimOf(stream, epoch), signer } };
}
