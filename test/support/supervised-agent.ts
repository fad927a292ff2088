import { Worker } from 'node:worker_threads';

import { silentLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { RequestActivity } from '../../guest-agent/fuse/dev-fuse/request-activity.ts';
import { AgentLink } from '../../guest-agent/supervisor/agent-link.ts';
import type { FuseThreadData, FuseThreadMessage } from './fuse-thread.ts';

/*
 * An agent for the supervisor's tests: a MemoryFileSystem on a fuse thread. Its content dies with it, as a real agent's
 * unflushed buffers do. First argument: 'hold' never answers dirty flushes, so that they are pending when it is killed;
 * 'refuse' exits with EX_CONFIG; 'no-resend' reports what a kernel before 6.9 would; 'endless' never ends the first look-up of
 * a file of that name; 'second-hangs' is an agent whose first successor never gets ready; 'serve' serves.
 */

const behaviour = process.argv[2] ?? 'serve';
const activityMemory = RequestActivity.allocate();
const activity = new RequestActivity(activityMemory);
const link = new AgentLink(process, { log: silentLog });

if (behaviour === 'refuse') {
  process.exitCode = 78;
  link.close();
} else {
  link.listen({
    serve,
    stop: () => link.close(),
    isResponsive: () => !activity.isStuck(),
  });
}

function serve(message: {
  readonly descriptor: number;
  readonly takeover: FuseThreadData['takeover'];
}): void {
  if (behaviour === 'second-hangs' && message.takeover?.incarnation === 1) return;
  const workerData: FuseThreadData = {
    descriptor: message.descriptor,
    takeover: message.takeover,
    refusedNames: [],
    declined2: 0,
    activity: activityMemory,
    endlessName: behaviour === 'endless' && message.takeover === null ? 'endless' : null,
    // The second agent of a connection answers what the first one left.
    defers: behaviour === 'hold' && message.takeover === null,
  };
  const thread = new Worker(compiledEntry('test/support/fuse-thread.ts'), { workerData });
  thread.on('message', (said: FuseThreadMessage) => {
    if (said.type === 'negotiated') {
      const hidden = behaviour === 'no-resend' ? { flags2: 0 } : {};
      link.negotiated({ ...said.negotiation, ...hidden });
      link.ready();
    } else if (said.type === 'ended') link.ended(said.end);
  });
  if (message.takeover !== null) thread.on('online', () => link.ready());
}
