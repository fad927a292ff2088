import type { MessagePort } from 'node:worker_threads';

import { ControlServer } from '../common/control/control-server.ts';
import { makeDirectory } from '../common/runtime/make-directory.ts';
import type { ProcessDependencies } from '../common/runtime/run-process.ts';
import { storeOptions } from './agent-options.ts';
import { SystemBootClock } from './channel/boot-clock.ts';
import { ChannelServer } from './channel/channel-server.ts';
import type { GuestAgentConfig } from './config.ts';
import { createControlApi, type FileSystemReport } from './control-api.ts';
import { StorePart } from './store-part.ts';

/** What an agent has behind its file system, whichever backend serves that; to be started in this order. */
export interface AgentParts {
  readonly store: StorePart;
  readonly channel: ChannelServer;
  readonly control: ControlServer;
}

export interface AgentPartsOptions {
  readonly mountPath: string;
  /** Where the store thread answers deferred requests: a descriptor of /dev/fuse, or a port that gets the replies. */
  readonly replies: { readonly descriptor: number } | { readonly port: MessagePort };
  /** Undefined when the file system does not answer. */
  readonly reportFileSystem: () => Promise<FileSystemReport | undefined>;
}

const agentInstanceBytes = 8;

/** Store, channel server and control API of one agent. Makes the data directory. */
export function buildAgentParts(
  config: GuestAgentConfig,
  deps: ProcessDependencies,
  options: AgentPartsOptions,
): AgentParts {
  const { clock, log, logLevel, requestStop } = deps;
  const { mountPath, replies, reportFileSystem } = options;
  makeDirectory(config.dataDirectory, 0o700);
  const store = new StorePart(
    { clock, log, onFailure: dieWith(deps, 'store'), requestStop },
    {
      store: storeOptions(config),
      replyDescriptor: 'descriptor' in replies ? replies.descriptor : null,
      replyPort: 'port' in replies ? replies.port : null,
      logLevel,
    },
  );
  const { address, tlsDirectory, watermarkIntervalMs } = config.channel;
  const channel = new ChannelServer(
    { clock, bootClock: new SystemBootClock(), log, store },
    {
      address,
      ...(tlsDirectory === undefined ? {} : { tlsDirectory }),
      watermarkIntervalMs,
      agentInstance: Buffer.from(deps.random.bytes(agentInstanceBytes)).toString('hex'),
    },
  );
  const api = createControlApi({
    mountPath,
    dataDirectory: config.dataDirectory,
    databaseBytesMax: config.store.databaseBytesMax,
    store,
    channel,
    reportFileSystem,
  });
  const control = new ControlServer(
    api,
    { clock, log },
    { name: 'guest-agent', socketPath: config.controlSocket },
  );
  return { store, channel, control };
}

/** For a thread without which nothing is saved: whoever started this process starts another, which recovers as from any kill. */
export function dieWith(
  deps: Pick<ProcessDependencies, 'log'>,
  part: string,
): (error: unknown) => void {
  return (error) => {
    deps.log.error('thread-died', { part, error: error instanceof Error ? error.stack : error });
    process.kill(process.pid, 'SIGKILL');
  };
}
