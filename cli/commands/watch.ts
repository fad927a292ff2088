import type { Command } from 'commander';

import { follow } from '../../common/control/follow.ts';
import { fromJsonValue } from '../../common/control/json-value.ts';
import { positionHeader, readingSchema, type Reading } from '../../common/control/reader-answer.ts';
import { connectClients } from '../clients.ts';
import type { CommandContext, GlobalOptions, Output } from '../context.ts';
import { formatTimeUs } from '../text/time.ts';
import { formatValue } from '../text/value.ts';
import { examples } from './examples.ts';
import { parsePattern, parseSince } from './reading-options.ts';

interface WatchOptions extends GlobalOptions {
  readonly json?: boolean;
  readonly since?: string;
  readonly vm?: string;
}

export function addWatchCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('watch')
    .description('show measurements as they arrive, until Ctrl-C')
    .argument('[pattern]', 'data points to show: `*` within a part, `**` for any parts', '**')
    .option('--json', 'one JSON document a line')
    .option('--since <time>', 'begin with what is stored since then: 10m, 2026-01-01T00:00Z')
    .option('--vm <id>', 'of this VM only')
    .action(async (pattern: string, _options: unknown, self: Command) => {
      await watch(pattern, self.optsWithGlobals<WatchOptions>(), context);
    });
  examples(command, [
    ['isobar watch', 'everything that arrives from now on'],
    ["isobar watch 'kpi/users/*' --since 10m", 'the last ten minutes first'],
    ["isobar watch 'infra/**' --json | jq -r .value", 'for programs'],
  ]);
}

async function watch(
  patternText: string,
  options: WatchOptions,
  context: CommandContext,
): Promise<void> {
  const pattern = parsePattern(patternText);
  const sinceUs = parseSince(options.since, context.clock.wallUs());
  const { reader } = connectClients(context, options);
  const { signal, release } = context.interruptible();
  const { output } = context;
  const formatter = new ReadingFormatter(output, { showsVm: options.vm === undefined });
  // Where the first connection began: a reconnection before the first reading must not begin at its own "now".
  let startPosition: string | undefined;
  try {
    const readings = follow(
      reader,
      readingSchema,
      {
        signal,
        pathAfter: (newest) => {
          const query = new URLSearchParams({ pattern });
          if (options.vm !== undefined) query.set('vm', options.vm);
          const after = newest === undefined ? startPosition : String(newest.position);
          if (after !== undefined) query.set('after', after);
          else if (sinceUs !== undefined) query.set('sinceUs', String(sinceUs));
          return `/v1/watch?${query.toString()}`;
        },
        onHead: (headers) => {
          const position = headers[positionHeader];
          if (typeof position === 'string') startPosition ??= position;
        },
        onLost: () => {
          output.remark('connection to the reader lost; waiting for it to come back');
        },
        onRestored: () => {
          output.remark('connected again; nothing was missed');
        },
      },
      context,
    );
    if (output.columns !== undefined) {
      output.remark(output.style.dim(`watching ${pattern} (Ctrl-C ends it)`));
    }
    for await (const reading of readings) {
      await output.line(
        options.json === true ? JSON.stringify(reading) : formatter.format(reading),
      );
    }
  } finally {
    release();
  }
}

/** Lines of readings under each other: the name column grows with the longest seen, up to a bound. */
export class ReadingFormatter {
  readonly #output: Output;
  readonly #showsVm: boolean;
  #nameWidth = 0;

  constructor(output: Output, options: { readonly showsVm: boolean }) {
    this.#output = output;
    this.#showsVm = options.showsVm;
  }

  format(reading: Reading): string {
    const { style } = this.#output;
    const name = this.#showsVm ? `${reading.vm} ${reading.dataPoint}` : reading.dataPoint;
    this.#nameWidth = Math.min(nameWidthMax, Math.max(this.#nameWidth, name.length));
    const isScaled = this.#output.columns !== undefined;
    const value = formatValue(fromJsonValue(reading.value), reading.dataPoint, { isScaled });
    const parts = [
      style.dim(formatTimeUs(reading.timeUs)),
      style.cyan(name.padEnd(this.#nameWidth)),
      style.bold(value),
      style.dim(describeOrigin(reading)),
    ];
    return parts.join('  ').trimEnd();
  }
}

const nameWidthMax = 56;

/** What a reader must know to judge the value: how it came about. */
function describeOrigin(reading: Reading): string {
  const remarks: string[] = [];
  if (reading.format !== 'raw') remarks.push(`${reading.format} of ${reading.count ?? 0}`);
  if (reading.skippedCount !== null && reading.skippedCount > 0) {
    remarks.push(`skipped ${reading.skippedCount}`);
  }
  if (reading.window !== null) {
    const { startMs, endMs } = reading.window;
    remarks.push(`[${formatTimeUs(startMs * 1_000)}, ${formatTimeUs(endMs * 1_000)})`);
  }
  if (reading.predicateState !== null) remarks.push(reading.predicateState);
  if (reading.held) remarks.push('held');
  if (reading.revision > 0) remarks.push(`revision ${reading.revision}`);
  return remarks.length === 0 ? '' : `(${remarks.join(', ')})`;
}
