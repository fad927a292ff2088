import { Option } from 'commander';

import { ControlClient } from '../common/control/control-client.ts';
import type { Clients, CommandContext, GlobalOptions, ProcessOptions } from './context.ts';
import { locateDataDirectory } from './data-directory.ts';
import { connectProcess } from './single-process.ts';

/** Names one process that runs alone, for commands that talk to it. */
export function configOption(process: string): Option {
  return new Option(
    '--config <file>',
    `talk to the ${process} that runs with this configuration, instead of isobar up`,
  );
}

/** The reader of `--config`, or of the instance in the chosen data directory. */
export function connectReader(context: CommandContext, options: ProcessOptions): ControlClient {
  if (options.config === undefined) return connectClients(context, options).reader;
  return connectProcess(options.config, 'primary-site');
}

/** The collector of `--config`, or of the instance in the chosen data directory. */
export function connectCollector(context: CommandContext, options: ProcessOptions): ControlClient {
  if (options.config === undefined) return connectClients(context, options).collector;
  return connectProcess(options.config, 'host-collector');
}

/** The guest agent of `--config`, or of the instance in the chosen data directory. */
export function connectGuest(context: CommandContext, options: ProcessOptions): ControlClient {
  if (options.config === undefined) return connectClients(context, options).guest;
  return connectProcess(options.config, 'guest-agent');
}

/** Clients of the instance in the chosen data directory. Constructing them touches nothing. */
export function connectClients(context: CommandContext, options: GlobalOptions): Clients {
  const directory = locateDataDirectory(options.dataDir, context.environment, context.userId);
  const suffix = options.dataDir === undefined ? '' : ` --data-dir ${options.dataDir}`;
  const client = (socketPath: string, peer: string): ControlClient =>
    new ControlClient({ socketPath, peer, startCommand: `isobar up${suffix}` });
  return {
    directory,
    up: client(directory.sockets.up, 'isobar up'),
    reader: client(directory.sockets.primarySite, 'the reader (primary-site)'),
    collector: client(directory.sockets.hostCollector, 'the host collector'),
    guest: client(directory.sockets.guestAgent, 'the guest agent'),
  };
}
