import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { Hono } from 'hono';
import { describe, expect, test } from 'vitest';

import { machineDescriptor } from '../../../cli/up/machine-descriptor.ts';
import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { runProgram } from '../../support/programs/run-program.ts';
import { skipBecause } from '../../support/requirements.ts';
import { withInstance } from '../../support/served-instance.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { findProgram, type FoundProgram } from '../../support/test-packages.ts';

/** The only file where the shells run. */
const fileName = 'vm1.json';

/** What the shells are to complete, and what each must offer and nothing else; null: files. */
const cases = [
  { words: ['vm', 's'], candidates: ['set-monitoring', 'show'] },
  { words: ['watch', '--s'], candidates: ['--since'] },
  { words: ['vm', 'show', ''], candidates: ['vm1', 'vm2'] },
  { words: ['watch', 'kpi/'], candidates: ['kpi/my%20file/column1', 'kpi/users/column1'] },
  { words: ['config', 'check', ''], candidates: null },
] as const;

/** What each offers for files: bash by `-o default`, which is its own affair. */
const filesOf = { bash: [], zsh: ['FILES'], fish: [fileName] } as const;

const instance = {
  hostCollector: new Hono().get('/v1/vms', (context) =>
    context.json({
      vms: [machineDescriptor('vm1', '/run/x'), machineDescriptor('vm2', '/run/y')],
    }),
  ),
  primarySite: new Hono().get('/v1/data-points', (context) =>
    context.json({
      dataPoints: ['kpi/users/column1', 'kpi/my%20file/column1'].map((dataPoint) => ({
        vm: 'vm1',
        dataPoint,
        newestTimeUs: null,
      })),
    }),
  ),
};

/** Each shell runs the script that `isobar completion SHELL` prints, and then what its Tab runs. */
const scripts = {
  bash: (words: readonly string[]) => `
    source <(isobar completion bash)
    complete -p isobar > /dev/null || exit 1
    COMP_WORDS=(isobar ${quoted(words)}); COMP_CWORD=${words.length}
    _isobar
    (( \${#COMPREPLY[@]} )) && printf '%s\\n' "\${COMPREPLY[@]}"
    exit 0`,
  zsh: (words: readonly string[]) => `
    [[ $SHELL_ROOT == / ]] || module_path=($SHELL_ROOT/usr/lib/*/zsh/*)
    compdef() { [[ "$*" == "_isobar isobar" ]] || exit 1 }
    compadd() { [[ $1 == -a ]] || exit 1; print -rl -- "\${(@P)2}" }
    _files() { print FILES }
    source <(isobar completion zsh)
    words=(isobar ${quoted(words)}); CURRENT=$(( ${words.length} + 1 ))
    _isobar`,
  fish: (words: readonly string[]) => `
    test -d "$SHELL_ROOT/usr/share/fish"; and set fish_function_path $SHELL_ROOT/usr/share/fish/functions
    isobar completion fish | source
    complete -C "isobar ${words.join(' ')}"`,
} as const;
type Shell = keyof typeof scripts;

const optionsOf = { bash: ['--norc'], zsh: ['-f'], fish: ['--no-config'] } as const;

function quoted(words: readonly string[]): string {
  return words.map((word) => `'${word}'`).join(' ');
}

/** Makes `shell` run `script` with an `isobar` on its PATH that talks to the instance at `dataPath`. */
async function runIn(shell: FoundProgram, name: Shell, script: string, dataPath: string) {
  using directory = temporaryDirectory();
  const [programs, files] = [join(directory.path, 'bin'), join(directory.path, 'files')];
  mkdirSync(programs);
  mkdirSync(files);
  writeFileSync(join(files, fileName), '{}');
  const command = `#!/bin/sh\nexec '${process.execPath}' '${compiledEntry('cli/main.ts')}' "$@"\n`;
  writeFileSync(join(programs, 'isobar'), command, { mode: 0o755 });
  return await runProgram(shell.path, [...optionsOf[name], '-c', script], {
    workingDirectory: files,
    environment: {
      ...shell.environment,
      PATH: [programs, shell.environment['PATH'] ?? ''].join(delimiter),
      HOME: directory.path,
      SHELL_ROOT: shell.root ?? '/',
      ISOBAR_DATA_DIR: dataPath,
    },
  });
}

describe('completion', () => {
  test.for(['bash', 'zsh', 'fish'] as const)(
    '%s completes commands, options, VMs and data points',
    { timeout: 180_000 },
    async (name, context) => {
      const shell = await findProgram(name);
      if (typeof shell === 'string') {
        skipBecause(context, shell);
        return;
      }
      await withInstance(instance, async (_run, path) => {
        for (const { words, candidates } of cases) {
          const script = scripts[name](words);
          const { stdout, stderr } = await runIn(shell, name, script, path);
          // fish says behind a Tab what a candidate is.
          const lines = stdout.split('\n').filter((line) => line !== '');
          const offered = lines.map((line) => line.split('\t')[0]);
          expect({ words, offered, stderr }).toEqual({
            words,
            offered: candidates ?? filesOf[name],
            stderr: '',
          });
        }
      });
    },
  );
});
