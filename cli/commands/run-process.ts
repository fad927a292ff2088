import { Option, type Command } from 'commander';

import { logLevels } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { runGuest } from '../guest-program.ts';
import { examples } from './examples.ts';

interface RunOptions {
  readonly config: string;
  readonly checkConfig?: boolean;
  readonly logLevel?: string;
}

/** Adds `run` below `group`: one process alone, in the foreground, as a service manager wants it. */
export function addRunCommand(group: Command, process: string): void {
  const command = group
    .command('run')
    .description(`run the process ${process} alone, in the foreground`)
    .requiredOption('--config <file>', 'its configuration')
    .option('--check-config', 'only check the configuration')
    .addOption(
      new Option(
        '--log-level <level>',
        'of the JSON lines on standard error; else as configured, or info',
      ).choices(logLevels),
    )
    .action(async (_options: unknown, self: Command) => {
      await runHere(process, self.opts<RunOptions>());
    });
  examples(command, [
    [`isobar config example ${process} > ${process}.json`, ''],
    [`isobar ${group.name()} run --config ${process}.json`, ''],
  ]);
}

/** The guest agent needs a supervisor. Any other process's main takes over this one, so that signals and exit codes are its own. */
async function runHere(name: string, options: RunOptions): Promise<void> {
  const entry = compiledEntry(name === 'relay' ? 'broker/relay/main.ts' : `${name}/main.ts`);
  const commandLine = ['--config', options.config];
  if (options.logLevel !== undefined) commandLine.push('--log-level', options.logLevel);
  if (options.checkConfig === true) commandLine.push('--check-config');
  if (name === 'guest-agent') {
    await runGuest(options.config, commandLine);
    return;
  }
  process.argv = [process.execPath, entry, ...commandLine];
  await import(entry);
}
