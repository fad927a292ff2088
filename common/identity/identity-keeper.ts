import type { Cancel, Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Service } from '../runtime/service.ts';
import type { SiteAuthority } from './site-authority.ts';
import { readSiteStatus } from './site-status.ts';

const defaultCheckIntervalMs = 60_000;
const warningIntervalMs = 86_400_000;

/**
 * Renews a site's leaf, signing certificate and revocation list while its process runs, and logs what a person should do
 * something about (`isobar site status` shows the same) at the start and once a day.
 */
export class IdentityKeeper implements Service {
  readonly name = 'identity-keeper';
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #authority: SiteAuthority;
  readonly #directory: string;
  readonly #checkIntervalMs: number;
  readonly #onRenewed: () => Promise<void>;
  #warnedAtMs = 0;
  #working: Promise<void> = Promise.resolve();
  #cancel: Cancel = () => {};

  constructor(
    deps: {
      readonly clock: Clock;
      readonly log: Log;
      readonly authority: SiteAuthority;
      /** Of the same site. */
      readonly directory: string;
      /** Called after files have changed, so that nobody waits for the next poll. */
      readonly onRenewed: () => Promise<void>;
    },
    checkIntervalMs: number = defaultCheckIntervalMs,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#authority = deps.authority;
    this.#directory = deps.directory;
    this.#onRenewed = deps.onRenewed;
    this.#checkIntervalMs = checkIntervalMs;
  }

  /** Renews what is due before it resolves. @throws IdentityError */
  async start(): Promise<void> {
    await this.#authority.renewWhatIsDue();
    await this.#warn();
    this.#cancel = this.#clock.every(this.#checkIntervalMs, () => {
      this.#working = this.#working.then(() => this.#check());
    });
  }

  async stop(): Promise<void> {
    this.#cancel();
    await this.#working;
  }

  async #check(): Promise<void> {
    if (this.#clock.monotonicMs() - this.#warnedAtMs >= warningIntervalMs) await this.#warn();
    try {
      const renewed = await this.#authority.renewWhatIsDue();
      if (renewed.length === 0) return;
      this.#log.info('identity-renewed', { renewed });
      await this.#onRenewed();
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      this.#log.error('identity-renewal-failed', { cause });
    }
  }

  async #warn(): Promise<void> {
    this.#warnedAtMs = this.#clock.monotonicMs();
    try {
      const { warnings } = await readSiteStatus(this.#directory, this.#clock.wallUs() / 1_000);
      for (const warning of warnings) this.#log.warn('site-needs-attention', { warning });
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      this.#log.error('site-status-unreadable', { cause });
    }
  }
}
