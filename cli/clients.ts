import { ControlClient } from '../common/control/control-client.ts';
import type { Clients, CommandContext, GlobalOptions } from './context.ts';
import { locateDataDirectory } from './data-directory.ts';

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
