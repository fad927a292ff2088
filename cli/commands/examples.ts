import type { Command } from 'commander';

/** Appends an `Examples:` section to a command's help; every command has one. */
export function examples(
  command: Command,
  pairs: readonly (readonly [command: string, explanation: string])[],
): void {
  const width = Math.max(...pairs.map(([text]) => text.length));
  const lines = pairs.map(([text, explanation]) =>
    `  $ ${text.padEnd(width)}  ${explanation}`.trimEnd(),
  );
  command.addHelpText('after', ['', 'Examples:', ...lines].join('\n'));
}
