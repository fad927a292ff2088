import type { CommandContext, Output } from '../../cli/context.ts';
import { runCommandLine } from '../../cli/program.ts';
import { createStyle } from '../../cli/text/style.ts';
import { SystemClock, type Clock } from '../../common/runtime/clock.ts';
import { SystemRandom } from '../../common/runtime/random.ts';

export interface CommandResult {
  readonly exitCode: number;
  readonly lines: readonly string[];
  readonly remarks: readonly string[];
  /** What it wrote that is not text. */
  readonly bytes: Buffer;
}

/** Runs `isobar` in this process, as from a pipe (or a terminal of `columns`), and collects what it prints. */
export async function runIsobar(
  commandLine: readonly string[],
  options: {
    readonly clock?: Clock;
    readonly columns?: number;
    readonly standardInput?: string | Uint8Array;
    /** What a person at the terminal answers; without, there is no terminal. */
    readonly answer?: string;
    /** Ends a `watch` once it has printed so many lines, as Ctrl-C does. */
    readonly interruptAfterLines?: number;
  } = {},
): Promise<CommandResult> {
  const lines: string[] = [];
  const remarks: string[] = [];
  const written: Uint8Array[] = [];
  const interrupt = new AbortController();
  let commandExitCode = 0;
  const output: Output = {
    style: createStyle(false),
    errorStyle: createStyle(false),
    columns: options.columns,
    line: (text) => {
      lines.push(...text.split('\n'));
      if (lines.length === options.interruptAfterLines) interrupt.abort();
      return Promise.resolve();
    },
    bytes: (content) => {
      written.push(content);
      return Promise.resolve();
    },
    remark: (text) => {
      remarks.push(text);
    },
  };
  const { answer } = options;
  const standardInput = Buffer.from(options.standardInput ?? '');
  const context: CommandContext = {
    ...(answer === undefined ? {} : { ask: () => Promise.resolve(answer) }),
    clock: options.clock ?? new SystemClock(),
    random: new SystemRandom(),
    environment: {},
    userId: 1_000,
    output,
    interruptible: () => ({ signal: interrupt.signal, release: () => {} }),
    readStandardInput: () => Promise.resolve(standardInput.toString('utf8')),
    readStandardInputBytes: (bytesMax) => Promise.resolve(standardInput.subarray(0, bytesMax + 1)),
    setExitCode: (exitCode) => {
      commandExitCode = exitCode;
    },
  };
  const exitCode = await runCommandLine(commandLine, context);
  return {
    exitCode: exitCode === 0 ? commandExitCode : exitCode,
    lines,
    remarks,
    bytes: Buffer.concat(written),
  };
}
