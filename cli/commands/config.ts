import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';

import { Argument, Option, type Command } from 'commander';
import { z } from 'zod';

import { ConfigError, parseConfig } from '../../common/config/load-config.ts';
import type { CommandContext } from '../context.ts';
import { exitCodes } from '../exit-code.ts';
import { documentKinds, type DocumentKind } from '../process-kinds.ts';
import { examples } from './examples.ts';

interface CheckOptions {
  readonly as?: string;
  readonly json?: boolean;
}

export function addConfigCommands(program: Command, context: CommandContext): void {
  const kinds = Object.keys(documentKinds);
  const config = program.command('config').description('check and write configuration files');
  examples(config, [
    ['isobar config example vm > vm1.json', 'a document to begin with'],
    ['isobar config check vm1.json', 'every problem at once'],
  ]);
  const check = config
    .command('check')
    .description('report every problem of every file at once; exit code 78 if there is one')
    .argument('<file...>', 'JSON files: VM descriptors and configurations; - reads standard input')
    .addOption(
      new Option('--as <kind>', 'what the files are, where it does not show').choices(kinds),
    )
    .option('--json', 'one JSON document a file')
    .action(async (files: readonly string[], _options: unknown, self: Command) => {
      await checkFiles(files, self.optsWithGlobals<CheckOptions>(), context);
    });
  examples(check, [
    ['isobar config check vm1.json host-collector.json', ''],
    ['isobar config check --as vm - < draft.json', ''],
  ]);
  const example = config
    .command('example')
    .description('print a complete, valid document to begin with')
    .addArgument(new Argument('<kind>', 'which').choices(kinds))
    .action(async (kind: string) => {
      await context.output.line(JSON.stringify(documentKinds[kind]?.example, undefined, 2));
    });
  examples(example, [['isobar config example vm > vm1.json', '']]);
}

async function checkFiles(
  files: readonly string[],
  options: CheckOptions,
  context: CommandContext,
): Promise<void> {
  for (const file of files) {
    const error = await checkFile(file, options, context);
    if (error !== undefined) context.setExitCode(exitCodes.config);
    if (options.json === true) {
      await context.output.line(JSON.stringify({ file, problems: error?.problems ?? [] }));
    } else if (error === undefined) {
      await context.output.line(`${file}: ok`);
    } else {
      context.output.remark(error.message);
    }
  }
}

async function checkFile(
  file: string,
  options: CheckOptions,
  context: CommandContext,
): Promise<ConfigError | undefined> {
  let document: unknown;
  try {
    const text = file === '-' ? await context.readStandardInput() : await readFile(file, 'utf8');
    document = JSON.parse(text);
  } catch (cause) {
    const rule = cause instanceof Error ? cause.message : String(cause);
    return new ConfigError('config-unreadable', file, [{ path: '', value: '(unreadable)', rule }]);
  }
  try {
    parseConfig(kindOf(file, document, options.as).schema, document, file);
    return undefined;
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
}

/** Documents that say what they are, by what they say. */
const kindsThatSay: Readonly<Record<string, string>> = { VirtualMachine: 'vm', Site: 'site' };

/**
 * A descriptor says what it is; a configuration is known by its file's name.
 * @throws ConfigError
 */
function kindOf(file: string, document: unknown, choice: string | undefined): DocumentKind {
  const { kind: said } = z.object({ kind: z.string() }).catch({ kind: '' }).parse(document);
  const name = choice ?? kindsThatSay[said] ?? basename(file).replace(/\.json$/, '');
  const kind = documentKinds[name];
  if (kind !== undefined) return kind;
  const rule = `does not say what it is: check it alone, with --as ${Object.keys(documentKinds).join('|')}`;
  throw new ConfigError('config-invalid', file, [{ path: 'kind', value: 'unknown', rule }]);
}
