import { runProcess, type ProcessDependencies } from '../common/runtime/run-process.ts';
import type { Service } from '../common/runtime/service.ts';
import { type GuestAgentConfig, guestAgentConfigSchema } from '../guest-agent/config.ts';
import { exitCodes } from './exit-code.ts';
import { buildGuestMount } from './up/guest-mount.ts';

/** The guest agent alone, as in a VM: what keeps its mount alive in this process, and the agent behind it. */
export async function runGuest(configPath: string, commandLine: readonly string[]): Promise<void> {
  await runProcess(
    {
      name: 'guest-supervisor',
      schema: guestAgentConfigSchema,
      build: (config, dependencies) => guestService(config, dependencies, configPath),
    },
    commandLine,
  );
}

function guestService(
  config: GuestAgentConfig,
  dependencies: ProcessDependencies,
  configPath: string,
): Service {
  const { logLevel, log, requestStop } = dependencies;
  const mount = buildGuestMount(
    { ...config, agentArguments: ['--config', configPath, '--log-level', logLevel] },
    {
      ...dependencies,
      takeOutput: (chunk) => {
        process.stderr.write(chunk);
      },
    },
  );
  return {
    name: 'guest',
    start: async () => {
      await mount.start();
      if (mount.isPrivate) log.warn('mount-private', { mountPath: config.mountPath });
      mount.finished?.().catch((error: unknown) => {
        const message = error instanceof Error ? error.message : String(error);
        log.error('guest-agent-failed', { message });
        process.exitCode = exitCodes.failure;
        requestStop('guest-agent-failed');
      });
    },
    stop: () => mount.stop(),
  };
}
