import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { LogCursors } from '../../broker/log/log-cursors.ts';
import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import { mqttClientDefaults } from '../../broker/mqtt/mqtt-client.ts';
import { SiteTransports } from '../../broker/mqtt/site-transports.ts';
import { producerDefaults } from '../../broker/producer/producer-options.ts';
import { Producer } from '../../broker/producer/producer.ts';
import { type Cancel, SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import type { EncodedFrame, StreamId } from '../../common/wire/frame.ts';
import { dataStream, rowRecord } from '../../test/support/sample-frames.ts';

/*
 * The source of a chain with many streams: stream-source.js --config FILE. It commits frames to a stream log, forwards them
 * and answers queries as a host collector does, but makes them up: one row each, of a number and the monotonic time in µs.
 * A number over IPC: that many frames a second, over all streams in turn, from now on; answers how many it has made, at 0.
 */

const configSchema = z.object({
  dataDirectory: z.string(),
  siteDirectory: z.string().optional(),
  port: z.int(),
  relation: z.string(),
  streamCount: z.int().min(1),
});
const intervalMs = 5;

const config = configSchema.parse(JSON.parse(readFileSync(process.argv[3] ?? '', 'utf8')));
const clock = new SystemClock();
const database = openDatabase(join(config.dataDirectory, 'source.db'), { synchronous: 'NORMAL' });
migrateStreamLog(database);
const deps = { database, clock, random: new SystemRandom(), log: silentLog };
const transports = new SiteTransports(deps, {
  siteDirectory: config.siteDirectory,
  listen: { host: '127.0.0.1', port: config.port },
  localPort: undefined,
  roles: new Map([[config.relation, 'consumer']]),
  keepaliveSeconds: mqttClientDefaults.keepaliveSeconds,
});
const transport = transports.to(config.relation, undefined);
const streamLog = new StreamLog(deps);
const producer = new Producer(
  { ...deps, transport, streamLog, cursors: new LogCursors(deps), allows: () => true },
  { ...producerDefaults, relations: [config.relation] },
);

const streams = Array.from({ length: config.streamCount }, (_, index) =>
  dataStream(`stream-${index}`),
);
openEpochs();
await transports.identity.start();
await transport.start();
await producer.start();

function openEpochs(): void {
  const open = database.transaction(() => {
    for (const stream of streams) {
      streamLog.openEpoch(stream, { generation: null, reason: 'created' });
    }
  });
  open();
}

let madeCount = 0;
let cancelMaking: Cancel = () => {};

/** One transaction for all that is due, then the way out: what the origin does with the rows of one turn. */
function make(count: number): void {
  const append = database.transaction(() =>
    Array.from({ length: count }, (): EncodedFrame => {
      const stream: StreamId | undefined = streams[madeCount % streams.length];
      if (stream === undefined) throw new Error('a source has at least one stream');
      madeCount += 1;
      const atUs = Number(process.hrtime.bigint() / 1_000n);
      return streamLog.append(stream, [rowRecord('growth', clock.wallUs(), [madeCount, atUs])]);
    }),
  );
  producer.forward(append());
}

process.on('message', (framesPerSecond) => {
  cancelMaking();
  if (framesPerSecond === 0) {
    process.send?.(madeCount);
    return;
  }
  const startMs = clock.monotonicMs();
  const before = madeCount;
  cancelMaking = clock.every(intervalMs, () => {
    const due = ((clock.monotonicMs() - startMs) / 1_000) * Number(framesPerSecond);
    const count = Math.floor(due) - (madeCount - before);
    if (count > 0) make(count);
  });
});
process.once('disconnect', () => {
  process.kill(process.pid, 'SIGKILL');
});
