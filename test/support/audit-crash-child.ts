import { writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';

import { AuditLog, auditFileBytesMin } from '../../common/audit/audit-log.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';

/**
 * Appends entries until it kills itself at the crash point given, the `occurrence`-th time that it is reached; with none it
 * goes on until it is killed. The seq of each appended entry is written to standard output.
 */
const [directory = '', crashPoint = '', occurrence = '1'] = process.argv.slice(2);
let reachedCount = 0;
const log = new AuditLog(
  {
    clock: new SystemClock(),
    log: silentLog,
    reachCrashPoint: (point) => {
      if (point !== crashPoint) return;
      reachedCount += 1;
      if (reachedCount === Number(occurrence)) process.kill(process.pid, 'SIGKILL');
    },
  },
  { directory, fileBytesMax: auditFileBytesMin, filesMax: 3, sync: 5 },
);
await log.start();
for (;;) {
  const { seq } = log.append({
    relation: 'a-b',
    direction: 'in',
    action: 'GET /v1/site',
    object: '',
    outcome: 'ok',
    requestDigest: null,
  });
  writeSync(1, `${seq}\n`);
  // Lets the timers run, by which the head is noted.
  if (seq % 10 === 0) await setImmediate();
}
