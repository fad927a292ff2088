import { MessageChannel } from 'node:worker_threads';

import type { ProcessDependencies } from '../common/runtime/run-process.ts';
import { type Service, ServiceGroup } from '../common/runtime/service.ts';
import { fileSystemOptions } from './agent-options.ts';
import { buildAgentParts } from './agent-parts.ts';
import type { GuestAgentConfig } from './config.ts';
import { NativeMountService } from './native-mount-service.ts';

/**
 * The agent with the fuse-native backend, which mounts by itself:
 *
 *   libfuse's threads -> main thread: file system -> store thread
 *                            ^---- replies, posted ----'
 *
 * The mount dies with this process; whoever started it starts another, which takes the stale mount away and mounts anew.
 */
export class NativeAgent implements Service {
  readonly name = 'guest-agent';
  readonly #parts: ServiceGroup;

  constructor(config: GuestAgentConfig, deps: ProcessDependencies) {
    const replies = new MessageChannel();
    const { store, channel, control } = buildAgentParts(config, deps, {
      mountPath: config.mountPath,
      replies: { port: replies.port2 },
      reportFileSystem: () => Promise.resolve(mount.report()),
    });
    const mount = new NativeMountService(deps, {
      mountPath: config.mountPath,
      dataDirectory: config.dataDirectory,
      fileSystem: fileSystemOptions(config),
      memory: store.memory,
      replies: replies.port1,
    });
    this.#parts = new ServiceGroup('guest-agent', [store, channel, control, mount]);
  }

  start(): Promise<void> {
    return this.#parts.start();
  }

  stop(): Promise<void> {
    return this.#parts.stop();
  }
}
