import { pino } from 'pino';

import { EventLimiter, eventQuotas } from './event-limiter.ts';

/** Fields of a log event; durations, sizes and counts carry their unit in the name. */
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * Logs are events: a stable kebab-case name and fields. error = a person must act; warn = degraded and
 * recovering; info = life cycle; debug = per item. Payloads and keys are never logged.
 */
export interface Log {
  error(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  debug(event: string, fields?: LogFields): void;
  /** A log whose events carry `fields` too. */
  child(fields: LogFields): Log;
}

export const logLevels = ['error', 'warn', 'info', 'debug', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/**
 * JSON lines, one event a line: on standard error, written synchronously so that a crash loses none, or to `destination`,
 * which gets each with its line end. Events beyond the bounded rate of {@link EventLimiter} are left out, and counted in
 * `suppressedCount` of the next line of that event: a peer that sends nonsense without end fills no disk.
 */
export function createLog(
  part: string,
  level: LogLevel,
  destination: { write(line: string): void } = pino.destination({ dest: 2, sync: true }),
  limiter: EventLimiter = new EventLimiter(),
): Log {
  return new PinoLog(pino({ base: { part }, level, messageKey: 'event' }, destination), limiter);
}

/** Discards everything: for tests and for short-lived commands. */
export const silentLog: Log = {
  error: () => {},
  warn: () => {},
  info: () => {},
  debug: () => {},
  child: () => silentLog,
};

class PinoLog implements Log {
  readonly #logger: pino.Logger;
  readonly #limiter: EventLimiter;

  constructor(logger: pino.Logger, limiter: EventLimiter) {
    this.#logger = logger;
    this.#limiter = limiter;
  }

  error(event: string, fields: LogFields = {}): void {
    this.#write('error', event, fields);
  }

  warn(event: string, fields: LogFields = {}): void {
    this.#write('warn', event, fields);
  }

  info(event: string, fields: LogFields = {}): void {
    this.#write('info', event, fields);
  }

  debug(event: string, fields: LogFields = {}): void {
    this.#logger.debug(fields, event);
  }

  child(fields: LogFields): Log {
    return new PinoLog(this.#logger.child(fields), this.#limiter);
  }

  #write(level: 'error' | 'warn' | 'info', event: string, fields: LogFields): void {
    const { relation } = fields;
    const key = typeof relation === 'string' ? `${event} ${relation}` : event;
    const quota = level === 'info' ? eventQuotas.progress : eventQuotas.trouble;
    const suppressedCount = this.#limiter.admit(key, quota);
    if (suppressedCount === undefined) return;
    this.#logger[level](suppressedCount === 0 ? fields : { ...fields, suppressedCount }, event);
  }
}
