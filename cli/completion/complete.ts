import type { Command } from 'commander';

/** What an argument's name stands for, where the answer has to be asked for. */
export type CandidateSource = (kind: 'vm' | 'pattern') => Promise<readonly string[]>;

/**
 * Candidates for the last of `words` (what follows `isobar`, the last one perhaps empty), from the command tree:
 * sub-commands, options, their choices, and running VMs and data points where an argument is called `vm` or `pattern`.
 * An empty answer leaves it to the shell, which then offers files.
 */
export async function complete(
  program: Command,
  words: readonly string[],
  candidatesOf: CandidateSource,
): Promise<string[]> {
  const current = words.at(-1) ?? '';
  const { command, argumentIndex, pendingOption } = walk(program, words.slice(0, -1));
  const candidates = await candidatesAt();
  return candidates.filter((candidate) => candidate.startsWith(current)).toSorted();

  async function candidatesAt(): Promise<readonly string[]> {
    if (pendingOption === '--vm') return candidatesOf('vm');
    if (pendingOption !== undefined) return [];
    if (current.startsWith('-')) return optionsOf(command);
    const subcommands = visibleSubcommands(command).map((child) => child.name());
    if (subcommands.length > 0) return subcommands;
    const argument = command.registeredArguments[argumentIndex];
    if (argument?.argChoices !== undefined) return argument.argChoices;
    const name = argument?.name();
    if (name === 'vm' || name === 'pattern') return candidatesOf(name);
    return [];
  }
}

interface Position {
  readonly command: Command;
  readonly argumentIndex: number;
  /** The long name of an option whose value comes next. */
  readonly pendingOption: string | undefined;
}

function walk(program: Command, words: readonly string[]): Position {
  let command = program;
  let argumentIndex = 0;
  let pendingOption: string | undefined;
  for (const word of words) {
    if (pendingOption !== undefined) {
      pendingOption = undefined;
    } else if (word.startsWith('-')) {
      const option = [...command.options, ...program.options].find(
        (each) => each.long === word || each.short === word,
      );
      if (option?.required === true) pendingOption = option.long;
    } else {
      const child = visibleSubcommands(command).find((each) => each.name() === word);
      if (child === undefined) argumentIndex += 1;
      else command = child;
    }
  }
  return { command, argumentIndex, pendingOption };
}

function visibleSubcommands(command: Command): readonly Command[] {
  return command.createHelp().visibleCommands(command);
}

function optionsOf(command: Command): string[] {
  const help = command.createHelp();
  return [...help.visibleOptions(command), ...help.visibleGlobalOptions(command)].flatMap(
    (option) => (option.long === undefined || option.hidden ? [] : [option.long]),
  );
}
