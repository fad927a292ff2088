import { readFileSync } from 'node:fs';

import { buildGuestMount } from '../../cli/up/guest-mount.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { createLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { guestAgentConfigSchema } from '../../guest-agent/config.ts';

/*
 * An agent that is kept alive, for mounted-agent.ts: mounted-agent-fixture.js CONFIG. A process of its own, as a test that
 * waits inside the mount must not keep the supervisor from restarting the agent. Says "ready" over IPC; SIGTERM unmounts.
 */
const [configPath = ''] = process.argv.slice(2);
const config = guestAgentConfigSchema.parse(JSON.parse(readFileSync(configPath, 'utf8')));
const mount = buildGuestMount(
  { ...config, agentArguments: ['--config', configPath, '--log-level', 'warn'] },
  {
    clock: new SystemClock(),
    random: new SystemRandom(),
    log: createLog('supervisor', 'warn'),
    takeOutput: (chunk) => {
      process.stderr.write(chunk);
    },
  },
);
process.once('SIGTERM', () => {
  void mount.stop().finally(() => {
    process.disconnect?.();
  });
});
await mount.start();
process.send?.('ready');
