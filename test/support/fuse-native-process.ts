import { SystemClock } from '../../common/runtime/clock.ts';
import { createLog } from '../../common/runtime/log.ts';
import { FuseNativeBackend } from '../../guest-agent/fuse/fuse-native/fuse-native-backend.ts';
import { MemoryFileSystem } from './memory-file-system.ts';

/**
 * A process of its own for the fuse-native backend: `fuse-native-process.js <mount path> <refused name> <errno>`.
 * Prints "ready" and unmounts on SIGTERM.
 */
const [, , mountPath = '', refusedName = '', refusedWith = '0'] = process.argv;
// Dirty flushes are answered in a later turn of the loop, as a store thread's answers would be.
const backend: FuseNativeBackend = new FuseNativeBackend(
  { clock: new SystemClock(), log: createLog('test', 'error') },
  {
    mountPath,
    fileSystem: new MemoryFileSystem({
      nowUs: () => Date.now() * 1_000,
      refusedNames: new Map([[refusedName, Number(refusedWith)]]),
      defer: (token) => {
        setImmediate(() => {
          backend.reply(token, 0, null);
        });
      },
    }),
  },
);
const keepAlive = setInterval(() => {}, 60_000);
process.once('SIGTERM', () => {
  void backend.stop().finally(() => {
    clearInterval(keepAlive);
  });
});
await backend.start();
console.log('ready');
