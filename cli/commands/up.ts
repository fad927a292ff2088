import { hostname } from 'node:os';
import { resolve } from 'node:path';

import { Option, type Command } from 'commander';

import { listenForStop, type StopSignals } from '../../common/runtime/stop-signals.ts';
import { type BackendName, backendNames } from '../../guest-agent/fuse/backend-capability.ts';
import type { CommandContext, GlobalOptions } from '../context.ts';
import { locateDataDirectory } from '../data-directory.ts';
import { findFreePort } from '../up/free-port.ts';
import { createUpLog } from '../up/up-log.ts';
import type { UpStatus } from '../up/up-status.ts';
import { buildUp, type Up } from '../up/up.ts';
import { examples } from './examples.ts';
import { parseCount } from './reading-options.ts';

interface UpOptions extends GlobalOptions {
  readonly mount?: string;
  readonly fuseBackend: BackendName;
  readonly mqttPort: string;
  readonly verbose?: boolean;
}

/** IANA's port of MQTT without TLS. */
const mqttPortDefault = '1883';

export function addUpCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('up')
    .description('run all of Isobar on this machine until Ctrl-C; a second Ctrl-C stops at once')
    .option(
      '--mount <directory>',
      'where applications save (default: mount/ in the data directory)',
    )
    .addOption(
      new Option('--fuse-backend <name>', 'how the file system is served')
        .choices(backendNames)
        .default('dev-fuse'),
    )
    .option(
      '--mqtt-port <port>',
      'of the broker on 127.0.0.1; another one if it is taken',
      mqttPortDefault,
    )
    .option('--verbose', 'print what the processes log')
    .action(async (_options: unknown, self: Command) => {
      await up(self.optsWithGlobals<UpOptions>(), context);
    });
  examples(command, [
    ['isobar up', ''],
    ['isobar up --mount /mnt/kpi --verbose', ''],
    ['isobar up --data-dir ./instance2', 'a second instance, independent of the first'],
  ]);
}

async function up(options: UpOptions, context: CommandContext): Promise<void> {
  const directory = locateDataDirectory(options.dataDir, context.environment, context.userId);
  const portMax = 65_535;
  const settings = {
    directory,
    mount: resolve(options.mount ?? directory.mount),
    fuseBackend: options.fuseBackend,
    mqttPort: await findFreePort(parseCount(options.mqttPort, '--mqtt-port', portMax)),
  };
  const { output, clock } = context;
  const isVerbose = options.verbose === true;
  const print = (text: string): void => {
    output.remark(text);
  };
  const instance = buildUp(settings, {
    clock,
    random: context.random,
    log: createUpLog(directory.logs, print, isVerbose ? print : undefined),
    hostName: hostname(),
    ...(isVerbose
      ? {
          takeOutput: (_name: string, chunk: Buffer) => {
            print(String(chunk).trimEnd());
          },
        }
      : {}),
  });
  const signals = listenForStop(clock, {
    stopNow: () => instance.stopNow(),
    watchesParent: false,
  });
  try {
    if (!(await startUnlessStopped(instance, signals))) return;
    for (const line of banner(instance.status(), options, context)) await output.line(line);
    await Promise.race([signals.requested, instance.finished()]);
    output.remark('stopping; Ctrl-C again stops at once');
  } finally {
    try {
      await instance.stop();
    } finally {
      signals.release();
    }
  }
}

/** False when a signal came before everything had started; then nothing runs any more. */
async function startUnlessStopped(instance: Up, signals: StopSignals): Promise<boolean> {
  const starting = instance.start();
  const first = await Promise.race([starting.then(() => 'started'), signals.requested]);
  if (first === 'started') return true;
  await instance.stopNow();
  await starting.catch(() => {
    // It says that it was stopped, which is what was asked for.
  });
  return false;
}

/** How this command was called, so that what is suggested works when it is typed. */
function invocation({ environment }: CommandContext): string {
  if (environment['npm_execpath'] !== undefined) return 'npx isobar';
  const entry = process.argv[1] ?? '';
  return entry.endsWith('.js') ? `node ${quote(entry)}` : 'isobar';
}

/** Where the mount is and what to do next, in under ten lines. */
function banner(status: UpStatus, options: UpOptions, context: CommandContext): string[] {
  const { style } = context.output;
  const command = invocation(context);
  const suffix = options.dataDir === undefined ? '' : ` --data-dir ${quote(options.dataDir)}`;
  return [
    `${style.green('Isobar runs')}; Ctrl-C ends it. Data and logs are in ${status.dataDirectory}`,
    `  mount  ${style.bold(status.mount)}`,
    ...(status.isPrivateMount ? [`         ${privateMountRemark}`] : []),
    `  mqtt   ${status.mqttUrl}`,
    'Try in a second terminal:',
    `  echo 42 > ${quote(`${status.mount}/unencrypted/users`)}`,
    `  ${command} watch${suffix}`,
    `  ${command} status${suffix}`,
  ];
}

const privateMountRemark =
  'only you see into it; for other users put user_allow_other into /etc/fuse.conf';

/** `text` as one word of a POSIX shell. */
function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
