import type { Clock } from '../../common/runtime/clock.ts';
import type { Log, LogFields } from '../../common/runtime/log.ts';
import { TokenBucket, type Quota } from '../../common/runtime/token-bucket.ts';

/** Warnings about one connection, however often its cause changes. */
const warningQuota: Quota = { burst: 20, perSecond: 0.1 };

/**
 * Why a connection does not stand: warned of once for each cause in a row (`mqtt-not-connected`), and said once when it is
 * there again (`mqtt-connected`). A peer that makes causes alternate fills no log.
 */
export class ConnectionTrouble {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #fields: LogFields;
  readonly #warnings: TokenBucket;
  #cause: string | undefined;
  #isTold = false;

  /** `fields`: what the connection is, for the log. */
  constructor(deps: { readonly clock: Clock; readonly log: Log }, fields: LogFields) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#fields = fields;
    this.#warnings = new TokenBucket(warningQuota, deps.clock.monotonicMs());
  }

  /** Of the last attempt; undefined while the connection stands, and before the first attempt ended. */
  get cause(): string | undefined {
    return this.#cause;
  }

  failed(cause: string): void {
    const isKnown = cause === this.#cause && this.#isTold;
    this.#cause = cause;
    if (isKnown || !this.#warnings.take(this.#clock.monotonicMs())) return;
    this.#isTold = true;
    this.#log.warn('mqtt-not-connected', { ...this.#fields, cause });
  }

  connected(): void {
    this.#cause = undefined;
    if (!this.#isTold) return;
    this.#isTold = false;
    this.#log.info('mqtt-connected', this.#fields);
  }
}

/** What an error on the way to a broker means to who operates this end. */
export function connectionCauseOf(error: {
  readonly message: string;
  readonly code?: string | number | undefined;
}): string {
  const { message } = error;
  const code = String(error.code ?? '');
  const alert = /^ERR_SSL_.*_ALERT_(.+)$/.exec(code)?.[1];
  if (alert !== undefined) {
    return `the other end refuses us (${alert.toLowerCase().replaceAll('_', ' ')}): ${askTrust}`;
  }
  if (code === 'ECONNRESET' || code === 'EPIPE') return hungUp;
  return message === '' ? code : message;
}

const askTrust = 'does it trust this site (isobar site status there)?';

/** Who is not trusted is hung up on without a word. */
export const hungUp = `the other end ended the connection: ${askTrust}`;
