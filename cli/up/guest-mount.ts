import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { GuestAgentConfig } from '../../guest-agent/config.ts';
import { unresponsiveMaxMsDefault } from '../../guest-agent/supervisor/agent-watch.ts';
import { Supervisor } from '../../guest-agent/supervisor/supervisor.ts';
import { ChildProcessService } from './child-process-service.ts';
import { MountPart } from './mount-part.ts';
import { NativeMountPart } from './native-mount-part.ts';
import type { MountProcessPart } from './process-part.ts';

const agentReadyMaxMs = 30_000;
const agentDrainMaxMs = 10_000;

/**
 * The guest agent with what keeps its mount alive, by backend: a supervisor in this process that holds the mount
 * (dev-fuse), or an agent that mounts by itself and is started again when it dies (fuse-native).
 */
export function buildGuestMount(
  options: Pick<GuestAgentConfig, 'mountPath' | 'fuseBackend'> & {
    readonly agentArguments: readonly string[];
    readonly unresponsiveMaxMs?: GuestAgentConfig['unresponsiveMaxMs'];
  },
  dependencies: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
    /** Gets what agents write to standard output and error. */
    readonly takeOutput: (chunk: Buffer) => void;
  },
): MountProcessPart {
  const { mountPath, fuseBackend, agentArguments } = options;
  const { unresponsiveMaxMs = unresponsiveMaxMsDefault } = options;
  const entry = compiledEntry('guest-agent/main.ts');
  if (fuseBackend === 'fuse-native') {
    const agent = new ChildProcessService(
      {
        name: 'guest-agent',
        entry,
        arguments: agentArguments,
        readyMaxMs: agentReadyMaxMs,
        drainMaxMs: agentDrainMaxMs,
      },
      dependencies,
    );
    return new NativeMountPart(agent, mountPath);
  }
  const supervisor = new Supervisor(dependencies, {
    mountPath,
    entry,
    args: agentArguments,
    readyTimeoutMs: agentReadyMaxMs,
    drainTimeoutMs: agentDrainMaxMs,
    unresponsiveMaxMs,
    takeOutput: dependencies.takeOutput,
  });
  return new MountPart(supervisor);
}
