import { Worker } from 'node:worker_threads';

import { SystemClock } from '../../common/runtime/clock.ts';
import { createLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { DevFuseReplySink } from '../../guest-agent/fuse/dev-fuse/dev-fuse-reply-sink.ts';
import { mountFuse } from '../../guest-agent/fuse/mount/fuse-mount.ts';
import type { FuseThreadData, FuseThreadMessage } from './fuse-thread.ts';

/**
 * A process of its own for the dev-fuse backend: `dev-fuse-process.js <mount path> <refused name> <errno> [declined2]`.
 * Prints "ready" and unmounts on SIGTERM. Dirty flushes are answered by the main thread, in the store thread's place.
 */
const [, , mountPath = '', refusedName = '', refusedWith = '0', declined2 = '0'] = process.argv;
const mount = await mountFuse(mountPath, { clock: new SystemClock() });
const descriptor = mount.inheritance.stdio;
if (typeof descriptor !== 'number') throw new Error('this process must run as root');
const sink = new DevFuseReplySink(descriptor, createLog('test', 'error'));
const workerData: FuseThreadData = {
  descriptor,
  takeover: null,
  refusedNames: [[refusedName, Number(refusedWith)]],
  declined2: Number(declined2),
  defers: true,
};
const thread = new Worker(compiledEntry('test/support/fuse-thread.ts'), { workerData });
thread.on('message', (said: FuseThreadMessage) => {
  if (said.type === 'deferred') sink.reply(said.token, 0, null);
  else if (said.type === 'negotiated') console.log('ready');
  else console.log(JSON.stringify(said));
});
process.once('SIGTERM', () => {
  void mount.unmount();
});
