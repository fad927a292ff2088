import { compiledEntry } from '../common/runtime/package-root.ts';
import { runProcess } from '../common/runtime/run-process.ts';
import { guestAgentConfigSchema } from '../guest-agent/config.ts';
import { Supervisor } from '../guest-agent/supervisor/supervisor.ts';

const readyTimeoutMs = 30_000;
const drainTimeoutMs = 10_000;

/** The guest agent alone, as in a VM: its supervisor in this process, which holds the mount, and the agent behind it. */
export async function runGuest(configPath: string, commandLine: readonly string[]): Promise<void> {
  await runProcess(
    {
      name: 'guest-supervisor',
      schema: guestAgentConfigSchema,
      build: (config, dependencies) =>
        new Supervisor(dependencies, {
          mountPath: config.mountPath,
          entry: compiledEntry('guest-agent/main.ts'),
          args: ['--config', configPath],
          readyTimeoutMs,
          drainTimeoutMs,
        }),
    },
    commandLine,
  );
}
