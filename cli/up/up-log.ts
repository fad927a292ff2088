import { join } from 'node:path';

import { createLog, type Log, type LogFields } from '../../common/runtime/log.ts';
import { formatDurationMs } from '../text/duration.ts';
import { RotatingFile } from './rotating-file.ts';

/** What a person reads at the terminal; a process's own log is `logs/NAME.log`. */
type Tell = (sentence: string) => void;

/**
 * The log of `isobar up` itself. Events are JSON lines in `logs/up.log`; of those that a person should know of, the
 * terminal gets one plain sentence each: what happened, what is done about it, and where the details are.
 */
export class UpLog implements Log {
  readonly #events: Log;
  readonly #logs: string;
  readonly #tell: Tell;

  constructor(events: Log, logs: string, tell: Tell) {
    this.#events = events;
    this.#logs = logs;
    this.#tell = tell;
  }

  error(event: string, fields: LogFields = {}): void {
    this.#events.error(event, fields);
    this.#say(event, fields);
  }

  warn(event: string, fields: LogFields = {}): void {
    this.#events.warn(event, fields);
    this.#say(event, fields);
  }

  info(event: string, fields: LogFields = {}): void {
    this.#events.info(event, fields);
  }

  debug(event: string, fields: LogFields = {}): void {
    this.#events.debug(event, fields);
  }

  child(fields: LogFields): Log {
    return new UpLog(this.#events.child(fields), this.#logs, this.#tell);
  }

  #say(event: string, fields: LogFields): void {
    const sentence = sentenceOf(event, fields, (name) => join(this.#logs, `${name}.log`));
    if (sentence !== undefined) this.#tell(sentence);
  }
}

/** An {@link UpLog} whose file is opened with its first event; `takeLine`, if there is one, gets the JSON lines too. */
export function createUpLog(
  logs: string,
  tell: Tell,
  takeLine: ((line: string) => void) | undefined,
): Log {
  let file: RotatingFile | undefined;
  const events = createLog('up', 'info', {
    write: (line) => {
      file ??= new RotatingFile(join(logs, 'up.log'));
      file.write(Buffer.from(line));
      takeLine?.(line.trimEnd());
    },
  });
  return new UpLog(events, logs, tell);
}

/** undefined for what is told as an error of the command anyway. */
function sentenceOf(
  event: string,
  fields: LogFields,
  logOf: (name: string) => string,
): string | undefined {
  const child = text(fields['child']) ?? 'guest-agent';
  switch (event) {
    case 'child-died':
    case 'agent-died':
      return `${child} died (${howItEnded(fields)}) and is started again; its log is ${logOf(child)}`;
    case 'child-killed':
    case 'agent-killed': {
      const drainMs = Number(fields['drainMaxMs'] ?? fields['drainTimeoutMs']);
      return `${child} did not end within ${formatDurationMs(drainMs)} and was killed; its log is ${logOf(child)}`;
    }
    case 'remounted':
      return `the file system was mounted anew at ${text(fields['mountPath']) ?? '?'}; files that were open there give errors`;
    case 'supervision-failed':
      return undefined;
    default:
      return `something went wrong (${event}); the details are in ${logOf('up')}`;
  }
}

function howItEnded(fields: LogFields): string {
  return text(fields['signal']) ?? `exit code ${text(fields['exitCode']) ?? '?'}`;
}

function text(field: unknown): string | undefined {
  return typeof field === 'string' || typeof field === 'number' ? String(field) : undefined;
}
