import { pino } from 'pino';

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
 * which gets each with its line end.
 */
export function createLog(
  part: string,
  level: LogLevel,
  destination: { write(line: string): void } = pino.destination({ dest: 2, sync: true }),
): Log {
  return new PinoLog(pino({ base: { part }, level, messageKey: 'event' }, destination));
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

  constructor(logger: pino.Logger) {
    this.#logger = logger;
  }

  error(event: string, fields: LogFields = {}): void {
    this.#logger.error(fields, event);
  }

  warn(event: string, fields: LogFields = {}): void {
    this.#logger.warn(fields, event);
  }

  info(event: string, fields: LogFields = {}): void {
    this.#logger.info(fields, event);
  }

  debug(event: string, fields: LogFields = {}): void {
    this.#logger.debug(fields, event);
  }

  child(fields: LogFields): Log {
    return new PinoLog(this.#logger.child(fields));
  }
}
