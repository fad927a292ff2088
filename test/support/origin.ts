import { LogCursors } from '../../broker/log/log-cursors.ts';
import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import type { MqttTransport } from '../../broker/mqtt/mqtt-transport.ts';
import { producerDefaults, type ProducerOptions } from '../../broker/producer/producer-options.ts';
import { Producer } from '../../broker/producer/producer.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { openDatabase, type Database } from '../../common/sqlite/database.ts';
import type { EncodedFrame, Epoch, FrameRecord, StreamId } from '../../common/wire/frame.ts';

/** The producing end as a host collector builds it: a log in an SQLite file, commit first, then forward. */
export class Origin {
  readonly database: Database;
  readonly log: StreamLog;
  readonly cursors: LogCursors;
  readonly producer: Producer;

  constructor(
    transport: MqttTransport,
    path: string,
    options: Partial<ProducerOptions> = {},
    allows: (relation: string, stream: StreamId) => boolean = () => true,
  ) {
    this.database = openDatabase(path, { synchronous: 'NORMAL' });
    migrateStreamLog(this.database);
    const deps = { database: this.database, clock: new SystemClock(), random: new SystemRandom() };
    this.log = new StreamLog(deps);
    this.cursors = new LogCursors(deps);
    this.producer = new Producer(
      { ...deps, transport, streamLog: this.log, cursors: this.cursors, log: silentLog, allows },
      { ...producerDefaults, announceIntervalMs: 50, relations: ['reader'], ...options },
    );
  }

  openEpoch(stream: StreamId): Epoch {
    const open = this.database.transaction(() =>
      this.log.openEpoch(stream, { generation: null, reason: 'created' }),
    );
    const { epoch, frame } = open();
    this.producer.forward([frame]);
    return epoch;
  }

  append(stream: StreamId, records: readonly FrameRecord[] = []): EncodedFrame {
    const frame = this.database.transaction(() => this.log.append(stream, records))();
    this.producer.forward([frame]);
    return frame;
  }

  async close(): Promise<void> {
    await this.producer.stop();
    this.database.close();
  }
}
