import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Option, type Command } from 'commander';

import { silentLog } from '../../common/runtime/log.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { CommandContext } from '../context.ts';
import { DemoFederation, demoSites, demoVms, type DemoSite } from '../demo/demo-federation.ts';
import { DemoRun } from '../demo/demo-run.ts';
import { formatVerdict, isFlawless } from '../demo/verdict.ts';
import { exitCodes } from '../exit-code.ts';
import { examples } from './examples.ts';
import { parseCount } from './reading-options.ts';

interface DemoCommandOptions {
  readonly kill?: DemoSite;
  readonly downSeconds: string;
  readonly seconds: string;
  readonly rate: string;
  readonly keep?: boolean;
}

const secondsMax = 86_400;
const rateMax = 10_000;

export function addDemoCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('demo')
    .description('run a federation of three sites on this machine, and judge what arrives')
    .addOption(
      new Option('--kill <site>', 'end its process by kill -9 in the middle').choices(demoSites),
    )
    .option('--down-seconds <count>', 'with --kill: start it again after this', '10')
    .option('--seconds <count>', 'how long applications save; Ctrl-C ends it earlier', '30')
    .option('--rate <count>', 'saves a second and VM', '50')
    .option('--keep', 'leave directories, logs and databases behind')
    .action(async (options: DemoCommandOptions) => {
      await demo(options, context);
    });
  examples(command, [
    ['isobar demo', 'a source site with two VMs, an intermediary, a primary site'],
    ['isobar demo --kill intermediary', 'which loses nothing'],
    ['isobar demo --seconds 300 --rate 200 --keep', ''],
  ]);
}

function temporaryDirectory(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'isobar-demo-'));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `no directory can be made below ${tmpdir()} (${reason}): set TMPDIR to one that this user may write`;
    throw new OperatingError('directory-unusable', message, { cause, needsSetup: true });
  }
}

async function demo(options: DemoCommandOptions, context: CommandContext): Promise<void> {
  const { output } = context;
  const runOptions = {
    ratePerSecond: parseCount(options.rate, '--rate', rateMax),
    durationMs: parseCount(options.seconds, '--seconds', secondsMax) * 1_000,
    kill:
      options.kill === undefined
        ? undefined
        : {
            site: options.kill,
            downMs: parseCount(options.downSeconds, '--down-seconds', secondsMax) * 1_000,
          },
  };
  const directory = temporaryDirectory();
  const deps = { ...context, log: silentLog };
  const federation = new DemoFederation(directory, deps);
  const { signal, release } = context.interruptible();
  let isFine = false;
  try {
    output.remark('starting three sites: authorities, certificates, mounts');
    await federation.start();
    for (const vm of demoVms) {
      output.remark(`  ${vm} saves into ${join(federation.mountPath(vm), 'unencrypted')}`);
    }
    const verdict = await new DemoRun(deps, federation, runOptions).run(signal);
    isFine = isFlawless(verdict);
    const { style } = output;
    const text = formatVerdict(verdict);
    await output.line(isFine ? style.green(text) : style.red(text));
    if (!isFine) context.setExitCode(exitCodes.failure);
  } finally {
    release();
    await federation.stop();
    if (options.keep === true || !isFine) output.remark(`everything is in ${directory}`);
    else rmSync(directory, { recursive: true, force: true });
  }
}
