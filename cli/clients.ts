import { join } from 'node:path';

import { Option } from 'commander';
import { z } from 'zod';

import { loadConfig } from '../common/config/load-config.ts';
import { ControlClient } from '../common/control/control-client.ts';
import type { Clients, CommandContext, GlobalOptions, ProcessOptions } from './context.ts';
import { locateDataDirectory } from './data-directory.ts';

/** Names one process that runs alone, for commands that talk to it. */
export function configOption(process: string): Option {
  return new Option(
    '--config <file>',
    `talk to the ${process} that runs with this configuration, instead of isobar up`,
  );
}

/** What every process's configuration has of it. */
const placeSchema = z.looseObject({
  dataDirectory: z.string().min(1),
  controlSocket: z.string().min(1).optional(),
});

/**
 * A client of the process that runs with a configuration file. Constructing it reads the file alone.
 * @throws ConfigError
 */
export function connectProcess(file: string, peer: string, runCommand: string): ControlClient {
  const { dataDirectory, controlSocket } = loadConfig(placeSchema, file);
  return new ControlClient({
    socketPath: controlSocket ?? join(dataDirectory, 'control.sock'),
    peer,
    startCommand: `${runCommand} --config ${file}`,
  });
}

/** The reader of `--config`, or of the instance in the chosen data directory. */
export function connectReader(context: CommandContext, options: ProcessOptions): ControlClient {
  if (options.config === undefined) return connectClients(context, options).reader;
  return connectProcess(options.config, 'the reader (primary-site)', 'isobar site run');
}

/** The collector of `--config`, or of the instance in the chosen data directory. */
export function connectCollector(context: CommandContext, options: ProcessOptions): ControlClient {
  if (options.config === undefined) return connectClients(context, options).collector;
  return connectProcess(options.config, 'the host collector', 'isobar collector run');
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
