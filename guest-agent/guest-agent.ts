import type { ProcessDependencies } from '../common/runtime/run-process.ts';
import { type Service, ServiceGroup } from '../common/runtime/service.ts';
import { fileSystemOptions } from './agent-options.ts';
import { buildAgentParts, dieWith } from './agent-parts.ts';
import type { GuestAgentConfig } from './config.ts';
import { FuseThreadService } from './fuse-thread-service.ts';
import type { Takeover } from './fuse/dev-fuse/dev-fuse-session.ts';
import type { AgentLink } from './supervisor/agent-link.ts';

/** What the supervisor has given: a mounted connection to serve. */
export interface Assignment {
  readonly descriptor: number;
  readonly mountPath: string;
  readonly takeover: Takeover | null;
}

/**
 * The agent behind one mount, with the dev-fuse backend:
 *
 *   fuse thread -> store thread -> main thread: row store -> channel server -> host
 *
 * Starts from the databases outwards, so that whatever is published finds its readers, and stops the other way round once
 * the mount is gone.
 */
export class GuestAgent implements Service {
  readonly name = 'guest-agent';
  readonly #parts: ServiceGroup;
  readonly #fuse: FuseThreadService;

  constructor(
    config: GuestAgentConfig,
    assignment: Assignment,
    deps: ProcessDependencies & { readonly link: AgentLink },
  ) {
    const { link, requestStop } = deps;
    const { store, channel, control } = buildAgentParts(config, deps, {
      mountPath: assignment.mountPath,
      replies: { descriptor: assignment.descriptor },
      reportFileSystem: () => fuse.report(),
    });
    const fuse = new FuseThreadService(
      {
        clock: deps.clock,
        onNegotiated: (negotiation) => {
          link.negotiated(negotiation);
        },
        onEnded: (end) => {
          link.ended(end);
          requestStop(`mount-${end}`);
        },
        onFailure: dieWith(deps, 'fuse'),
      },
      {
        descriptor: assignment.descriptor,
        takeover: assignment.takeover,
        mountPath: assignment.mountPath,
        memory: store.memory,
        dataDirectory: config.dataDirectory,
        fileSystem: fileSystemOptions(config),
        logLevel: deps.logLevel,
      },
    );
    this.#fuse = fuse;
    this.#parts = new ServiceGroup('guest-agent', [store, channel, control, fuse]);
  }

  start(): Promise<void> {
    return this.#parts.start();
  }

  /** Whether requests are served; false in a row means that the fuse thread hangs. */
  isResponsive(): boolean {
    return this.#fuse.isResponsive();
  }

  stop(): Promise<void> {
    return this.#parts.stop();
  }
}
