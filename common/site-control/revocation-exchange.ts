import { IdentityError } from '../identity/identity-error.ts';
import { acceptRevocationLists } from '../identity/invitation.ts';
import { readTextIfThere, siteFiles } from '../identity/site-files.ts';
import type { Cancel, Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { OperatingError } from '../runtime/operating-error.ts';
import type { Service } from '../runtime/service.ts';
import { TokenBucket, type Quota } from '../runtime/token-bucket.ts';
import { RequestRefused } from './control-code.ts';
import type { BoundEndpoint } from './endpoint.ts';
import { revocationEndpoint, serveRevocationLists } from './revocation-endpoint.ts';
import type { SiteControlClient } from './site-control-client.ts';

export interface RevocationExchangeOptions {
  readonly siteDirectory: string;
  /** How long a new list of ours stays unsent, ms. */
  readonly checkIntervalMs: number;
  /** How often the neighbours are asked for theirs, and how long after a failure they are asked again, ms. */
  readonly exchangeIntervalMs: number;
  /** How often one neighbour may bring lists. */
  readonly quota: Quota;
}

export const revocationExchangeDefaults = {
  checkIntervalMs: 2_000,
  exchangeIntervalMs: 60_000,
  quota: { burst: 3, perSecond: 0.1 },
} as const;

/** From the acceptance of a list to its effect, ms. */
const answerGraceMs = 200;

interface Exchanged {
  /** What the neighbour has of ours. */
  readonly lists: string;
  readonly dueAtMs: number;
}

/**
 * Keeps revocation lists of both sites of each relation current: hands ours to the neighbours that we reach as soon as
 * it changes, takes theirs in the answers, and does the same for neighbours that ask us.
 */
export class RevocationExchange implements Service {
  readonly name = 'revocation-exchange';
  readonly endpoint: BoundEndpoint;
  readonly #deps: {
    readonly clock: Clock;
    readonly log: Log;
    readonly clients: ReadonlyMap<string, SiteControlClient>;
    readonly reload: () => Promise<void>;
  };
  readonly #options: RevocationExchangeOptions;
  readonly #exchanged = new Map<string, Exchanged>();
  /** By relation. */
  readonly #buckets = new Map<string, TokenBucket>();
  #handedOut: string | undefined;
  readonly #stopping = new AbortController();
  #cancel: Cancel = () => {};
  #round: Promise<void> | undefined;

  constructor(
    deps: {
      readonly clock: Clock;
      readonly log: Log;
      /** By relation. */
      readonly clients: ReadonlyMap<string, SiteControlClient>;
      /** Takes up what changed in the site's files, so that nobody waits for the next look at them. Never rejects. */
      readonly reload: () => Promise<void>;
    },
    options: RevocationExchangeOptions,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.endpoint = serveRevocationLists({
      accept: (relation, lists) => {
        this.#refuseBeyondQuota(relation);
        return this.#accept(relation, lists);
      },
      lists: () => this.#ownLists(),
    });
  }

  start(): Promise<void> {
    const begin = (): void => {
      this.#round ??= this.#exchangeAll().finally(() => {
        this.#round = undefined;
      });
    };
    this.#cancel = this.#deps.clock.every(this.#options.checkIntervalMs, begin);
    begin();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#cancel();
    this.#stopping.abort();
    await this.#round;
  }

  async #exchangeAll(): Promise<void> {
    try {
      const lists = await this.#ownLists();
      const { clients } = this.#deps;
      await Promise.all(
        [...clients].map(([relation, client]) => this.#exchange(relation, client, lists)),
      );
    } catch (error) {
      this.#deps.log.error('revocation-lists-unreadable', { cause: messageOf(error) });
    }
  }

  async #exchange(relation: string, client: SiteControlClient, lists: string): Promise<void> {
    const { clock, log } = this.#deps;
    const before = this.#exchanged.get(relation);
    const nowMs = clock.monotonicMs();
    if (before?.lists === lists && nowMs < before.dueAtMs) return;
    const dueAtMs = nowMs + this.#options.exchangeIntervalMs;
    this.#exchanged.set(relation, { lists, dueAtMs });
    try {
      const answer = await client.call(revocationEndpoint, { lists }, this.#stopping.signal);
      if (answer.outcome === 'refused') log.warn('revocation-lists-refused', { relation });
      await this.#accept(relation, answer.lists);
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      log.warn('revocation-exchange-failed', { relation, cause: messageOf(error) });
    }
  }

  /** Each new list costs verifications and a look at all files, for which the quota of requests is far too much. */
  #refuseBeyondQuota(relation: string): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const bucket = this.#buckets.get(relation) ?? new TokenBucket(this.#options.quota, nowMs);
    this.#buckets.set(relation, bucket);
    if (!bucket.take(nowMs)) throw new RequestRefused('rate-limited');
  }

  async #accept(relation: string, lists: string): Promise<boolean> {
    const { clock, log, reload } = this.#deps;
    try {
      const { siteDirectory } = this.#options;
      if (!(await acceptRevocationLists(clock, siteDirectory, relation, lists))) return true;
    } catch (error) {
      if (!(error instanceof IdentityError) || error.code !== 'revocations-refused') throw error;
      log.warn('neighbour-revocation-lists-refused', { relation });
      return false;
    }
    // Later: it may cut the connection that this request came on, and the answer must be out by then.
    clock.after(answerGraceMs, () => void reload());
    return true;
  }

  async #ownLists(): Promise<string> {
    const { revocationList } = siteFiles(this.#options.siteDirectory);
    const lists = (await readTextIfThere(revocationList)) ?? '';
    // Before a neighbour hears that a key of ours is revoked, we use the one that was made in its place.
    if (lists !== this.#handedOut) await this.#deps.reload();
    this.#handedOut = lists;
    return lists;
  }
}

function messageOf(error: unknown): string {
  if (error instanceof OperatingError) return `${error.code}: ${error.message}`;
  return String(error);
}
