import { SystemClock } from '../../common/runtime/clock.ts';
import { createLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { Supervisor } from '../../guest-agent/supervisor/supervisor.ts';

/*
 * A supervised agent for mounted-agent.ts: mounted-agent-fixture.js MOUNT CONFIG. A process of its own, as a test that waits
 * inside the mount must not keep the supervisor from restarting the agent. Says "ready" over IPC; SIGTERM unmounts.
 */
const [mountPath = '', configPath = ''] = process.argv.slice(2);
const supervisor = new Supervisor(
  { clock: new SystemClock(), random: new SystemRandom(), log: createLog('supervisor', 'warn') },
  {
    mountPath,
    entry: compiledEntry('guest-agent/main.ts'),
    args: ['--config', configPath, '--log-level', 'warn'],
    readyTimeoutMs: 15_000,
    drainTimeoutMs: 10_000,
  },
);
process.once('SIGTERM', () => {
  void supervisor.stop().finally(() => {
    process.disconnect?.();
  });
});
await supervisor.start();
process.send?.('ready');
