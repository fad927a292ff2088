import { LogCursors } from '../../broker/log/log-cursors.ts';
import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import type { MqttTransport } from '../../broker/mqtt/mqtt-transport.ts';
import { producerDefaults, type ProducerOptions } from '../../broker/producer/producer-options.ts';
import { Producer } from '../../broker/producer/producer.ts';
import type { SigningIdentity } from '../../common/identity/tls-identity.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { LossSigner } from '../../common/signing/loss-signer.ts';
import { StatementSigner } from '../../common/signing/statement-signer.ts';
import { openDatabase, type Database } from '../../common/sqlite/database.ts';
import type { EncodedFrame, Epoch, FrameRecord, StreamId } from '../../common/wire/frame.ts';
import { EpochKeyStore } from '../../host-collector/origin/epoch-key-store.ts';
import { OriginProtector } from '../../host-collector/origin/origin-protector.ts';

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
    /** With it every frame is signed, and the keys are stated. */
    site?: SigningIdentity,
  ) {
    this.database = openDatabase(path, { synchronous: 'NORMAL' });
    migrateStreamLog(this.database);
    const deps = { database: this.database, clock: new SystemClock(), random: new SystemRandom() };
    const keys = new EpochKeyStore(this.database);
    const protector = new OriginProtector(
      { ...deps, keys },
      { signs: site !== undefined, keyRotationMs: 3_600_000, keyRepeatMs: 60_000 },
    );
    this.log = new StreamLog({ ...deps, protector });
    const statements =
      site === undefined
        ? undefined
        : {
            claimOf: (stream: StreamId, epoch: Epoch) => keys.claimOf(stream, epoch),
            signer: new StatementSigner(site),
          };
    this.cursors = new LogCursors(deps);
    this.producer = new Producer(
      {
        ...deps,
        transport,
        streamLog: this.log,
        cursors: this.cursors,
        log: silentLog,
        allows,
        losses: new LossSigner(site),
        ...(statements === undefined ? {} : { statements }),
      },
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
