import type { Clock } from './clock.ts';
import type { Log, LogFields } from './log.ts';
import { TokenBucket, type Quota } from './token-bucket.ts';

interface Pace {
  readonly bucket: TokenBucket;
  leftOutCount: number;
}

/** Kinds of events that are told apart; all further ones share one pace. */
const kindsMax = 1_024;
const otherKinds = 'others';

export const pacedLogDefaults: Quota = { burst: 20, perSecond: 0.2 };

/**
 * A log that nobody from outside can fill: of each warning or error about one relation (field `relation`) `burst` are written
 * at once and `perSecond` in the long run. What was left out is counted in `leftOutCount` of the next one that is written.
 */
export class PacedLog implements Log {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #quota: Quota;
  readonly #paces: Map<string, Pace>;

  constructor(
    log: Log,
    clock: Clock,
    quota: Quota = pacedLogDefaults,
    paces = new Map<string, Pace>(),
  ) {
    this.#log = log;
    this.#clock = clock;
    this.#quota = quota;
    this.#paces = paces;
  }

  error(event: string, fields: LogFields = {}): void {
    const paced = this.#pace(event, fields);
    if (paced !== undefined) this.#log.error(event, paced);
  }

  warn(event: string, fields: LogFields = {}): void {
    const paced = this.#pace(event, fields);
    if (paced !== undefined) this.#log.warn(event, paced);
  }

  info(event: string, fields: LogFields = {}): void {
    this.#log.info(event, fields);
  }

  debug(event: string, fields: LogFields = {}): void {
    this.#log.debug(event, fields);
  }

  child(fields: LogFields): Log {
    return new PacedLog(this.#log.child(fields), this.#clock, this.#quota, this.#paces);
  }

  /** The fields to write; undefined when it is left out. */
  #pace(event: string, fields: LogFields): LogFields | undefined {
    const nowMs = this.#clock.monotonicMs();
    const { relation } = fields;
    const about = typeof relation === 'string' ? relation : '';
    const pace = this.#paceOf(`${event} ${about}`, nowMs);
    if (!pace.bucket.take(nowMs)) {
      pace.leftOutCount += 1;
      return undefined;
    }
    const { leftOutCount } = pace;
    pace.leftOutCount = 0;
    return leftOutCount === 0 ? fields : { ...fields, leftOutCount };
  }

  #paceOf(kind: string, nowMs: number): Pace {
    const isKept = this.#paces.has(kind) || this.#paces.size < kindsMax;
    const key = isKept ? kind : otherKinds;
    const pace = this.#paces.get(key) ?? {
      bucket: new TokenBucket(this.#quota, nowMs),
      leftOutCount: 0,
    };
    this.#paces.set(key, pace);
    return pace;
  }
}
