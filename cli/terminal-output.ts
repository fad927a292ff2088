import { once } from 'node:events';
import type { WriteStream } from 'node:tty';

import { systemErrorCode } from '../common/runtime/operating-error.ts';
import type { Output } from './context.ts';
import { createStyle } from './text/style.ts';

type Stream = NodeJS.WriteStream & Partial<Pick<WriteStream, 'columns'>>;

/**
 * Standard output and error. Colour only on a terminal that wants it: not with NO_COLOR (no-color.org) or TERM=dumb.
 * When the reader of standard output goes away (`isobar watch | head -1`), `onReaderGone` is called once and what
 * follows is discarded.
 */
export function terminalOutput(
  streams: { readonly out: Stream; readonly error: Stream },
  environment: NodeJS.ProcessEnv,
  onReaderGone: () => void,
): Output {
  let isReaderGone = false;
  streams.out.on('error', (error) => {
    if (systemErrorCode(error) !== 'EPIPE') throw error;
    if (isReaderGone) return;
    isReaderGone = true;
    onReaderGone();
  });
  // A closed standard error leaves nobody to tell.
  streams.error.on('error', () => {});
  const write = async (data: string | Uint8Array): Promise<void> => {
    if (isReaderGone || streams.out.write(data)) return;
    await once(streams.out, 'drain').catch(() => {});
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

function usesColour(stream: Stream, environment: NodeJS.ProcessEnv): boolean {
  const refuses = (environment['NO_COLOR'] ?? '') !== '' || environment['TERM'] === 'dumb';
  return stream.isTTY && !refuses;
}
