import type { Command } from 'commander';

import { follow } from '../../common/control/follow.ts';
import { positionHeader, readingSchema } from '../../common/control/reader-answer.ts';
import { configOption, connectReader } from '../clients.ts';
import type { CommandContext, ProcessOptions } from '../context.ts';
import { examples } from './examples.ts';
import { ReadingFormatter } from './reading-formatter.ts';
import { parsePattern, parseSince } from './reading-options.ts';

interface WatchOptions extends ProcessOptions {
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
    .addOption(configOption('primary site'))
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
  const reader = connectReader(context, options);
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
