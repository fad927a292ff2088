import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { consumerDefaults } from '../../broker/consumer/consumer-options.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from '../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../broker/mqtt/mqtt-client.ts';
import type { MqttTransport } from '../../broker/mqtt/mqtt-transport.ts';
import { producerDefaults } from '../../broker/producer/producer-options.ts';
import { byteQuotaDefaults } from '../../broker/quota/byte-quotas.ts';
import type { ByteQuota } from '../../broker/quota/fair-share.ts';
import { migrateRelayLog } from '../../broker/relay/relay-log-schema.ts';
import type { UpstreamQuotas } from '../../broker/relay/relay-options.ts';
import { Relay, type RelayDeps } from '../../broker/relay/relay.ts';
import type { StreamPolicy } from '../../broker/stream-policy.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { openDatabase, type Database } from '../../common/sqlite/database.ts';
import type { StreamId } from '../../common/wire/frame.ts';

export const everyStream: StreamPolicy = { vms: 'all', kinds: new Set(['data', 'status']) };

/** Quick enough for tests; the shapes are those of the defaults. */
export const quickConsumer = {
  ...consumerDefaults,
  announcedGraceMs: 20,
  checkIntervalMs: 20,
  queryTimeoutMs: 500,
  reportIntervalMs: 5,
  silenceMsMin: 500,
};

export interface RelaySiteOptions {
  readonly directory: string;
  /** Of its own broker. */
  readonly port: number;
  /** Relation and port of the broker of each neighbour towards the VM. */
  readonly upstream: readonly {
    readonly relation: string;
    readonly port: number;
    readonly may?: StreamPolicy;
    readonly quotas?: UpstreamQuotas;
    readonly wrap?: (client: MqttTransport) => MqttTransport;
  }[];
  readonly downstream: readonly {
    readonly relation: string;
    readonly may?: StreamPolicy;
    readonly isStanding?: boolean;
    readonly hasAskedFor?: (stream: StreamId) => boolean;
  }[];
  readonly logBytesMax?: number;
  readonly siteQuota?: ByteQuota;
  /** With it key statements are verified and countersigned. */
  readonly trust?: RelayDeps['trust'];
  /** What an intermediary does that is no honest one. */
  readonly wrapDownstream?: (broker: MqttTransport) => MqttTransport;
}

/** A client of the broker on a loopback port that reconnects quickly. */
export function quickClient(port: number): MqttClient {
  return new MqttClient(
    { clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
    {
      ...mqttClientDefaults,
      url: `mqtt://127.0.0.1:${port}`,
      reconnect: { initialMs: 10, maxMs: 100, attemptsMax: Number.POSITIVE_INFINITY },
    },
  );
}

/** A relay in this process with a broker of its own, on real sockets and a real file. */
export class RelaySite implements AsyncDisposable {
  readonly relay: Relay;
  readonly database: Database;
  /** Its own. */
  readonly broker: EmbeddedBroker;

  constructor(options: RelaySiteOptions) {
    mkdirSync(options.directory, { recursive: true });
    const database = openDatabase(join(options.directory, 'relay.db'), { synchronous: 'NORMAL' });
    migrateRelayLog(database);
    this.database = database;
    const broker = new EmbeddedBroker(
      { clock: new SystemClock(), log: silentLog },
      { ...embeddedBrokerDefaults, port: options.port },
    );
    this.broker = broker;
    const toDownstream = options.wrapDownstream?.(broker) ?? broker;
    this.relay = new Relay(
      {
        database,
        clock: new SystemClock(),
        random: new SystemRandom(),
        log: silentLog,
        ...(options.trust === undefined ? {} : { trust: options.trust }),
        onCorrupt: () => {},
      },
      {
        siteQuota: options.siteQuota ?? byteQuotaDefaults.site,
        retention: { ageMaxMs: 1e9, bytesMax: options.logBytesMax ?? 1e9, intervalMs: 100 },
        consumer: quickConsumer,
        producer: { ...producerDefaults, announceIntervalMs: 50 },
      },
      {
        upstream: options.upstream.map(({ relation, port, may, wrap, quotas }) => ({
          relation,
          transport: (wrap ?? ((client) => client))(quickClient(port)),
          may: may ?? everyStream,
          quotas: quotas ?? { ...byteQuotaDefaults, vmsMax: 1_000 },
        })),
        downstream: options.downstream.map(({ relation, may, isStanding, ...asked }) => ({
          ...asked,
          relation,
          transport: toDownstream,
          may: may ?? everyStream,
          isStanding: isStanding ?? true,
        })),
      },
    );
  }

  /** One that runs. */
  static async start(options: RelaySiteOptions): Promise<RelaySite> {
    const site = new RelaySite(options);
    await site.relay.start();
    return site;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.database.open) return;
    await this.relay.stop();
    this.database.close();
  }
}
