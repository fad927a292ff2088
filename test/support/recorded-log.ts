import { createLog, type Log } from '../../common/runtime/log.ts';

/** One event, with its fields. */
export type LogRecord = Readonly<Record<string, unknown>> & { readonly event: string };

/** A log that keeps what is written to it from `info` on. */
export function recordedLog(): { readonly log: Log; readonly records: LogRecord[] } {
  const records: LogRecord[] = [];
  const log = createLog('test', 'info', {
    write: (line) => {
      records.push(JSON.parse(line) as LogRecord);
    },
  });
  return { log, records };
}
