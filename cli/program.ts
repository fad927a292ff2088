import { Command, CommanderError } from 'commander';

import { OperatingError } from '../common/runtime/operating-error.ts';
import { packageVersion } from '../common/runtime/package-root.ts';
import { addAuditCommands } from './commands/audit.ts';
import { addCompletionCommands } from './commands/completion.ts';
import { addConfigCommands } from './commands/config.ts';
import { addDemoCommand } from './commands/demo.ts';
import { examples } from './commands/examples.ts';
import { addGuestStatusCommand } from './commands/guest.ts';
import { addQueryCommand } from './commands/query.ts';
import { addRelayStatusCommand } from './commands/relay-status.ts';
import { addRunCommand } from './commands/run-process.ts';
import { addSealCommands } from './commands/seal.ts';
import { addSiteCommands } from './commands/site.ts';
import { addStatusCommand } from './commands/status.ts';
import { addUpCommand } from './commands/up.ts';
import { addVmCommands } from './commands/vm.ts';
import { addWatchCommand } from './commands/watch.ts';
import type { CommandContext } from './context.ts';
import { exitCodes } from './exit-code.ts';
import { UsageError } from './usage-error.ts';

/** The whole command tree; parsing runs a command. */
export function buildProgram(context: CommandContext): Command {
  const program = new Command('isobar')
    .description(
      'Captures KPIs that applications save as files, measures VMs, and shows both where they are judged.',
    )
    .version(packageVersion(), '--version', 'print the version')
    .option('--data-dir <directory>', 'the instance to start or to talk to ($ISOBAR_DATA_DIR)')
    .option('--debug', 'show where an error came from')
    .helpOption('-h, --help', 'show this help')
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .showSuggestionAfterError();
  addUpCommand(program, context);
  addWatchCommand(program, context);
  addQueryCommand(program, context);
  addStatusCommand(program, context);
  addVmCommands(program, context);
  addConfigCommands(program, context);
  addSealCommands(program, context);
  const guest = program.command('guest').description('the agent in the VM');
  addGuestStatusCommand(guest, context);
  addRunCommand(guest, 'guest-agent');
  const collector = program.command('collector').description('the collector on the VM host');
  addRunCommand(collector, 'host-collector');
  examples(collector, [['isobar collector run --config host-collector.json', '']]);
  const site = program
    .command('site')
    .description('identity and neighbours of a site, and the reader at the primary site');
  addSiteCommands(site, context);
  addRunCommand(site, 'primary-site');
  examples(site, [
    ['isobar site status', ''],
    ['isobar help site trust', 'more about one of them'],
  ]);
  const relay = program
    .command('relay')
    .description('an intermediary between VMs and primary sites');
  addRelayStatusCommand(relay, context);
  addRunCommand(relay, 'relay');
  examples(relay, [['isobar relay status --config relay.json', '']]);
  addDemoCommand(program, context);
  addAuditCommands(program, context);
  addCompletionCommands(program, context);
  addHelpCommand(program);
  examples(program, [
    ['isobar up', 'run everything on this machine'],
    ['isobar watch', 'in a second terminal: measurements as they arrive'],
    ['isobar help watch', 'more about a command'],
  ]);
  forEachCommand(program, (command) => {
    command
      .helpCommand(false)
      .showHelpAfterError(`(${pathOf(command)} --help shows how)`)
      .exitOverride()
      .configureOutput({
        writeOut: (text) => {
          context.output.line(text.trimEnd()).catch((error: unknown) => {
            report(error, false, context);
            context.setExitCode(exitCodes.failure);
          });
        },
        writeErr: (text) => {
          context.output.remark(text.trimEnd());
        },
      });
  });
  return program;
}

/**
 * Runs one command line (without `node isobar`). Never throws: prints what went wrong as a message that says what to
 * do, with a stack only under --debug or for a bug of ours, and returns the exit code (see exit-code.ts).
 */
export async function runCommandLine(
  commandLine: readonly string[],
  context: CommandContext,
): Promise<number> {
  const program = buildProgram(context);
  try {
    await program.parseAsync(commandLine, { from: 'user' });
    return exitCodes.ok;
  } catch (error) {
    // Commander has printed its message by now; help and version come this way too.
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    }
    report(error, program.opts<{ debug?: boolean }>().debug === true, context);
    if (error instanceof UsageError) return exitCodes.usage;
    const needsSetup = error instanceof OperatingError && error.needsSetup;
    return needsSetup ? exitCodes.config : exitCodes.failure;
  }
}

function report(error: unknown, debugs: boolean, context: CommandContext): void {
  const { output } = context;
  const label = output.errorStyle.red('error:');
  // Several parts failed to stop: each says what to do.
  if (error instanceof AggregateError) {
    for (const each of error.errors) report(each, debugs, context);
  } else if (!(error instanceof Error)) {
    output.remark(`${label} ${String(error)}`);
  } else if (debugs || !(error instanceof OperatingError)) {
    output.remark(`${label} ${error.stack ?? error.message}`);
    if (error.cause instanceof Error) output.remark(`caused by ${error.cause.stack ?? ''}`);
  } else {
    output.remark(`${label} ${error.message}`);
  }
}

/** `isobar help vm add`: any depth, and an error for what does not exist. */
function addHelpCommand(program: Command): void {
  const help = program
    .command('help')
    .description('show the help of a command')
    .argument('[command...]', 'its words: vm add')
    .action((words: readonly string[]) => {
      let command = program;
      for (const word of words) {
        const child = command.commands.find((each) => each.name() === word);
        if (child === undefined) {
          throw new UsageError(
            `there is no command '${pathOf(command)} ${word}'; ${pathOf(command)} --help lists those there are`,
          );
        }
        command = child;
      }
      command.outputHelp();
    });
  examples(help, [['isobar help vm add', '']]);
}

/** `isobar vm add` */
function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function forEachCommand(command: Command, act: (command: Command) => void): void {
  act(command);
  for (const child of command.commands) forEachCommand(child, act);
}
