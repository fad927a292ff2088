import { Argument, type Command } from 'commander';

import { collectorPaths, vmListAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlError } from '../../common/control/control-client.ts';
import { dataPointsAnswerSchema } from '../../common/control/reader-answer.ts';
import { connectClients } from '../clients.ts';
import { complete, type CandidateSource } from '../completion/complete.ts';
import {
  completionScript,
  installCommands,
  shells,
  type Shell,
} from '../completion/shell-scripts.ts';
import type { CommandContext, GlobalOptions } from '../context.ts';
import { examples } from './examples.ts';

export function addCompletionCommands(program: Command, context: CommandContext): void {
  const command = program
    .command('completion')
    .description('the script that makes your shell complete isobar')
    .addArgument(new Argument('<shell>').choices(shells))
    .action(async (shell: Shell) => {
      await context.output.line(completionScript(shell).trimEnd());
    });
  examples(
    command,
    shells.map((shell) => [installCommands[shell], `for ${shell}`] as const),
  );
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action(async (words: readonly string[], _options: unknown, self: Command) => {
      const source = candidateSource(context, self.optsWithGlobals<GlobalOptions>());
      const candidates = await complete(program, words.length === 0 ? [''] : words, source);
      for (const candidate of candidates) await context.output.line(candidate);
    });
}

/** Asks the running instance; with none there is nothing to offer, and a shell's Tab is no place for an error. */
function candidateSource(context: CommandContext, options: GlobalOptions): CandidateSource {
  const { collector, reader } = connectClients(context, options);
  return async (kind) => {
    try {
      if (kind === 'vm') {
        const { vms } = await collector.get(collectorPaths.vms, vmListAnswerSchema);
        return vms.map(({ id }) => id);
      }
      const { dataPoints } = await reader.get('/v1/data-points', dataPointsAnswerSchema);
      return [...new Set(dataPoints.map(({ dataPoint }) => dataPoint))];
    } catch (error) {
      if (error instanceof ControlError) return [];
      throw error;
    }
  };
}
