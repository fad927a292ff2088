import type { WriteStream } from 'node:tty';

import { OperatingError, systemErrorCode } from '../common/runtime/operating-error.ts';
import type { Output } from './context.ts';
import { createStyle } from './text/style.ts';

/** Nobody gets the data: a full disk behind `>`, for one. */
export class OutputError extends OperatingError<'output-failed'> {
  override readonly name = 'OutputError';
}

type Stream = NodeJS.WriteStream & Partial<Pick<WriteStream, 'columns'>>;

/**
 * Standard output and error. Colour only on a terminal that wants it: not with NO_COLOR (no-color.org) or TERM=dumb.
 * When the reader of standard output goes away (`isobar watch | head -1`), `onReaderGone` is called once and what
 * follows is discarded. Writing throws OutputError when what is behind standard output takes nothing.
 */
export function terminalOutput(
  streams: { readonly out: Stream; readonly error: Stream },
  environment: NodeJS.ProcessEnv,
  onReaderGone: () => void,
): Output {
  let isReaderGone = false;
  streams.out.on('error', (error) => {
    // Any other is told to whoever wrote.
    if (systemErrorCode(error) !== 'EPIPE' || isReaderGone) return;
    isReaderGone = true;
    onReaderGone();
  });
  // A closed standard error leaves nobody to tell.
  streams.error.on('error', () => {});
  const write = (data: string | Uint8Array): Promise<void> => {
    if (isReaderGone) return Promise.resolve();
    return new Promise((resolve, reject) => {
      streams.out.write(data, (cause) => {
        if (cause === null || cause === undefined || isReaderGone) resolve();
        else if (systemErrorCode(cause) === 'EPIPE') resolve();
        else reject(outputFailed(cause));
      });
    });
  };
  return {
    style: createStyle(usesColour(streams.out, environment)),
    errorStyle: createStyle(usesColour(streams.error, environment)),
    columns: streams.out.isTTY ? streams.out.columns : undefined,
    line: (text) => write(`${text}\n`),
    bytes: write,
    remark: (text) => {
      streams.error.write(`${text}\n`);
    },
  };
}

function outputFailed(cause: Error): OutputError {
  const message = `standard output can't be written (${cause.message}): is its disk full?`;
  return new OutputError('output-failed', message, { cause });
}

function usesColour(stream: Stream, environment: NodeJS.ProcessEnv): boolean {
  const refuses = (environment['NO_COLOR'] ?? '') !== '' || environment['TERM'] === 'dumb';
  return stream.isTTY && !refuses;
}
