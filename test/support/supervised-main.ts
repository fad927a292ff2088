import { SystemClock } from '../../common/runtime/clock.ts';
import { createLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { onStopSignals } from '../../guest-agent/supervisor/stop-signals.ts';
import { Supervisor } from '../../guest-agent/supervisor/supervisor.ts';

/** A supervising process: `supervised-main.js <mount path> <agent behaviour>`; prints its status once it runs. */
const [, , mountPath = '', behaviour = 'serve'] = process.argv;
const supervisor = new Supervisor(
  { clock: new SystemClock(), random: new SystemRandom(), log: createLog('supervisor', 'error') },
  {
    mountPath,
    entry: compiledEntry('test/support/supervised-agent.ts'),
    args: [behaviour],
    readyTimeoutMs: behaviour === 'second-hangs' ? 3_000 : 10_000,
    unresponsiveMaxMs: 3_000,
    drainTimeoutMs: 3_000,
  },
);
const keepAlive = setInterval(() => {}, 60_000);
const finish = (stopping: Promise<void>): void => {
  void stopping.finally(() => clearInterval(keepAlive));
};
onStopSignals(process, {
  stop: () => finish(supervisor.stop()),
  stopNow: () => finish(supervisor.stopNow()),
});
try {
  await supervisor.start();
  console.log(JSON.stringify(supervisor.status));
} catch (error) {
  console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
  process.exitCode = 1;
  clearInterval(keepAlive);
}
