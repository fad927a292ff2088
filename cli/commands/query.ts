import type { Command } from 'commander';

import { queryAnswerSchema } from '../../common/control/reader-answer.ts';
import { configOption, connectReader } from '../clients.ts';
import type { CommandContext, ProcessOptions } from '../context.ts';
import { examples } from './examples.ts';
import { ReadingFormatter } from './reading-formatter.ts';
import { parseCount, parsePattern, parseSince } from './reading-options.ts';

interface QueryOptions extends ProcessOptions {
  readonly json?: boolean;
  readonly since?: string;
  readonly until?: string;
  readonly vm?: string;
  readonly limit: string;
}

const limitMax = 100_000;

export function addQueryCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('query')
    .description('show stored measurements, oldest first')
    .argument('[pattern]', 'data points to show: `*` within a part, `**` for any parts', '**')
    .option('--json', 'one JSON document a line')
    .option('--since <time>', 'from this time on: 10m, 2026-01-01T00:00Z')
    .option('--until <time>', 'before this time')
    .option('--vm <id>', 'of this VM only')
    .option('--limit <count>', `at most so many, the newest of them (up to ${limitMax})`, '100')
    .addOption(configOption('primary site'))
    .action(async (pattern: string, _options: unknown, self: Command) => {
      await query(pattern, self.optsWithGlobals<QueryOptions>(), context);
    });
  examples(command, [
    ['isobar query', 'the newest hundred'],
    ["isobar query 'kpi/users/*' --since 1h", 'one file, the last hour'],
    ['isobar query --since 2026-01-01 --until 2026-02-01 --limit 100000 --json', 'an export'],
  ]);
}

async function query(
  patternText: string,
  options: QueryOptions,
  context: CommandContext,
): Promise<void> {
  const nowUs = context.clock.wallUs();
  const limit = parseCount(options.limit, '--limit', limitMax);
  const parameters = new URLSearchParams({
    pattern: parsePattern(patternText),
    limit: String(limit),
  });
  const sinceUs = parseSince(options.since, nowUs);
  const untilUs = parseSince(options.until, nowUs);
  if (sinceUs !== undefined) parameters.set('sinceUs', String(sinceUs));
  if (untilUs !== undefined) parameters.set('untilUs', String(untilUs));
  if (options.vm !== undefined) parameters.set('vm', options.vm);
  const reader = connectReader(context, options);
  const answer = await reader.get(`/v1/query?${parameters.toString()}`, queryAnswerSchema);
  const { output } = context;
  const formatter = new ReadingFormatter(output, { showsVm: options.vm === undefined });
  for (const reading of answer.readings) formatter.note(reading);
  for (const reading of answer.readings) {
    await output.line(options.json === true ? JSON.stringify(reading) : formatter.format(reading));
  }
  if (answer.readings.length === 0) output.remark('nothing stored matches');
  if (answer.isTruncated) {
    output.remark(`there are more than ${limit}: raise --limit, or narrow --since and --until`);
  }
}
