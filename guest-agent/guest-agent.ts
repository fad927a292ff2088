import { mkdirSync, readFileSync } from 'node:fs';

import { ControlServer } from '../common/control/control-server.ts';
import type { LogLevel } from '../common/runtime/log.ts';
import type { ProcessDependencies } from '../common/runtime/run-process.ts';
import { type Service, ServiceGroup } from '../common/runtime/service.ts';
import { SystemBootClock } from './channel/boot-clock.ts';
import { ChannelServer } from './channel/channel-server.ts';
import type { GuestAgentConfig } from './config.ts';
import { createControlApi } from './control-api.ts';
import { defaultFileSystemOptions, type FileSystemOptions } from './files/options.ts';
import { FuseThreadService } from './fuse-thread-service.ts';
import type { Takeover } from './fuse/dev-fuse/dev-fuse-session.ts';
import { StorePart } from './store-part.ts';
import { defaultStoreOptions, type StoreOptions } from './store/store-options.ts';
import type { AgentLink } from './supervisor/agent-link.ts';

/** What the supervisor has given: a mounted connection to serve. */
export interface Assignment {
  readonly descriptor: number;
  readonly mountPath: string;
  readonly takeover: Takeover | null;
}

const agentInstanceBytes = 8;

/**
 * The agent behind one mount:
 *
 *   fuse thread -> store thread -> main thread: row store -> channel server -> host
 *
 * Starts from the databases outwards, so that whatever is published finds its readers, and stops the other way round once
 * the mount is gone.
 */
export class GuestAgent implements Service {
  readonly name = 'guest-agent';
  readonly #parts: ServiceGroup;

  constructor(
    config: GuestAgentConfig,
    assignment: Assignment,
    deps: ProcessDependencies & { readonly link: AgentLink; readonly logLevel: LogLevel },
  ) {
    const { clock, log, link, logLevel, requestStop } = deps;
    mkdirSync(config.dataDirectory, { recursive: true, mode: 0o700 });
    const fail = (part: string) => (error: unknown) => {
      log.error('thread-died', { part, error: error instanceof Error ? error.stack : error });
      // The supervisor starts another agent, which recovers as from any kill.
      process.kill(process.pid, 'SIGKILL');
    };
    const store = new StorePart(
      { clock, log, onFailure: fail('store'), requestStop },
      {
        store: storeOptions(config),
        replyDescriptor: assignment.descriptor,
        replyPort: null,
        logLevel,
      },
    );
    const channel = new ChannelServer(
      { clock, bootClock: new SystemBootClock(), log, store },
      {
        address: config.channel.address,
        ...(config.channel.tlsDirectory === undefined
          ? {}
          : { tlsDirectory: config.channel.tlsDirectory }),
        watermarkIntervalMs: config.channel.watermarkIntervalMs,
        agentInstance: Buffer.from(deps.random.bytes(agentInstanceBytes)).toString('hex'),
      },
    );
    const fuse = new FuseThreadService(
      {
        clock,
        onNegotiated: (negotiation) => {
          link.negotiated(negotiation);
        },
        onEnded: (end) => {
          link.ended(end);
          requestStop(`mount-${end}`);
        },
        onFailure: fail('fuse'),
      },
      {
        descriptor: assignment.descriptor,
        takeover: assignment.takeover,
        mountPath: assignment.mountPath,
        memory: store.memory,
        dataDirectory: config.dataDirectory,
        fileSystem: fileSystemOptions(config),
        logLevel,
      },
    );
    const api = createControlApi({
      mountPath: assignment.mountPath,
      dataDirectory: config.dataDirectory,
      databaseBytesMax: config.store.databaseBytesMax,
      store,
      channel,
      reportFileSystem: () => fuse.report(),
    });
    const control = new ControlServer(
      api,
      { clock, log },
      { name: 'guest-agent', socketPath: config.controlSocket },
    );
    this.#parts = new ServiceGroup('guest-agent', [store, channel, control, fuse]);
  }

  start(): Promise<void> {
    return this.#parts.start();
  }

  stop(): Promise<void> {
    return this.#parts.stop();
  }
}

/** The store's bounds and times from the configuration. */
export function storeOptions(config: GuestAgentConfig): StoreOptions {
  const { headers, ...store } = config.store;
  return {
    ...defaultStoreOptions,
    ...store,
    directory: config.dataDirectory,
    fileBytesMax: config.files.fileBytesMax,
    headerRules: headers.map(({ pattern, header }) => ({ pattern, mode: header })),
    machineId: machineId(),
  };
}

/** The file system's bounds and names from the configuration. */
export function fileSystemOptions(config: GuestAgentConfig): FileSystemOptions {
  const { areaMode, scratchNames, exclusiveScratchNames, rotationNames, ...bounds } = config.files;
  const defaults = defaultFileSystemOptions;
  return {
    ...defaults,
    ...bounds,
    areaMode: Number.parseInt(areaMode, 8),
    areaUserId: process.geteuid?.() ?? 0,
    areaGroupId: process.getegid?.() ?? 0,
    capacityBytes: config.store.databaseBytesMax,
    names: {
      scratch: scratchNames ?? defaults.names.scratch,
      exclusiveScratch: exclusiveScratchNames ?? defaults.names.exclusiveScratch,
      rotation: rotationNames ?? defaults.names.rotation,
    },
  };
}

/** The DMI UUID, which a hypervisor gives each VM: a copied disk under another one is a clone. Root alone can read it. */
function machineId(): string | null {
  try {
    return readFileSync('/sys/class/dmi/id/product_uuid', 'utf8').trim();
  } catch {
    return null;
  }
}
