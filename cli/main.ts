#!/usr/bin/env node
import { text } from 'node:stream/consumers';

import { SystemClock } from '../common/runtime/clock.ts';
import { SystemRandom } from '../common/runtime/random.ts';
import { listenForStop } from '../common/runtime/stop-signals.ts';
import { ask } from './ask.ts';
import type { CommandContext } from './context.ts';
import { runCommandLine } from './program.ts';
import { terminalOutput } from './terminal-output.ts';

const readerGone = new AbortController();
const clock = new SystemClock();

const context: CommandContext = {
  clock,
  random: new SystemRandom(),
  environment: process.env,
  userId: process.getuid?.() ?? -1,
  output: terminalOutput({ out: process.stdout, error: process.stderr }, process.env, () => {
    readerGone.abort();
  }),
  interruptible: () => {
    const signals = listenForStop(clock, { stopNow: () => {}, watchesParent: false });
    const interrupted = new AbortController();
    void signals.requested.then((reason) => {
      interrupted.abort(reason);
      return reason;
    });
    return {
      signal: AbortSignal.any([interrupted.signal, readerGone.signal]),
      release: () => {
        signals.release();
      },
    };
  },
  readStandardInput: () => text(process.stdin),
  ...(process.stdin.isTTY && process.stderr.isTTY ? { ask: askAtTerminal } : {}),
  readStandardInputBytes: (bytesMax) => readBytes(process.stdin, bytesMax),
  setExitCode: (exitCode) => {
    process.exitCode = exitCode;
  },
};

async function readBytes(source: NodeJS.ReadStream, bytesMax: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let byteCount = 0;
  for await (const part of source) {
    const bytes = Buffer.from(part);
    parts.push(bytes);
    byteCount += bytes.length;
    if (byteCount > bytesMax) break;
  }
  return Buffer.concat(parts).subarray(0, bytesMax + 1);
}

const exitCode = await runCommandLine(process.argv.slice(2), context);
// A command that ended well may have set its own.
if (exitCode !== 0) process.exitCode = exitCode;

function askAtTerminal(question: string): Promise<string> {
  return ask({ input: process.stdin, output: process.stderr }, question);
}
