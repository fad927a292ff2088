import { LogCursors } from '../../broker/log/log-cursors.ts';
import { LogRetention } from '../../broker/log/log-retention.ts';
import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import { mqttClientDefaults } from '../../broker/mqtt/mqtt-client.ts';
import { SiteTransports } from '../../broker/mqtt/site-transports.ts';
import type { FrameAppender, FrameForwarder, KeyStatements } from '../../broker/ports.ts';
import { producerDefaults } from '../../broker/producer/producer-options.ts';
import { Producer } from '../../broker/producer/producer.ts';
import type { SigningIdentity } from '../../common/identity/tls-identity.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { PacedLog } from '../../common/runtime/paced-log.ts';
import { PruningService } from '../../common/runtime/pruning-service.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { Service } from '../../common/runtime/service.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import { StatementSigner } from '../../common/signing/statement-signer.ts';
import { siteServicesOf } from '../../common/site-control/site-services.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { HostCollectorConfig } from '../config.ts';
import { EpochKeyStore } from './epoch-key-store.ts';
import { OriginProtector } from './origin-protector.ts';

/** What an origin stands on: the stream log in its own database, and the way out. */
export interface StreamParts {
  readonly appender: FrameAppender;
  readonly forwarder: FrameForwarder;
  /** Told by the origin for whom each VM's data is sealed. */
  readonly protector?: OriginProtector;
  /** The keys of this host's epochs. */
  readonly epochKeys?: EpochKeyStore;
  /** Started before the origin, stopped after it. */
  readonly services: readonly Service[];
  readonly stages: () => Record<string, StageCounts>;
}

/** A pass looks for what is too old or too much; retention has slack for what comes in between. */
const retentionIntervalMs = 30_000;

/** The stream log of `deps.database`, and its producer on an embedded or an external MQTT broker. */
export function mqttStreams(
  deps: {
    readonly database: Database;
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
  },
  config: HostCollectorConfig,
): StreamParts {
  migrateStreamLog(deps.database);
  const epochKeys = new EpochKeyStore(deps.database);
  const protector = new OriginProtector(
    { ...deps, keys: epochKeys },
    {
      signs: config.signFrames ?? config.siteDirectory !== undefined,
      keyRotationMs: config.contentKeyRotationMs,
      keyRepeatMs: config.contentKeyRepeatMs,
    },
  );
  const streamLog = new StreamLog({ ...deps, protector });
  const { siteDirectory } = config;
  // Neighbours can cause warnings as often as they like.
  const log = new PacedLog(deps.log, deps.clock);
  const transports = transportsOf(config, { ...deps, log });
  const transport = transports.to('any', config.mqttUrl);
  const cursors = new LogCursors(deps);
  const { trust } = transports;
  const producer = new Producer(
    {
      ...deps,
      log,
      transport,
      streamLog,
      cursors,
      allows: () => true,
      ...(trust === undefined ? {} : { statements: statementsOf(epochKeys, trust) }),
    },
    { ...producerDefaults, relations: config.relations },
  );
  const retention = new LogRetention(
    { ...deps, cursors },
    { bytesMax: config.logBytesMax, ageMaxMs: config.logAgeMaxMs },
  );
  const pruning = new PruningService(deps, {
    name: 'log-retention',
    intervalMs: retentionIntervalMs,
    prune: () => retention.prune().more,
  });
  const { dataDirectory, control } = config;
  const site = siteServicesOf(
    { ...deps, site: transports.site },
    { siteDirectory, dataDirectory, listen: control?.listen, controlUrls: new Map() },
  );
  return {
    appender: streamLog,
    forwarder: producer,
    protector,
    epochKeys,
    services: [
      pruning,
      transports.identity,
      transport,
      producer,
      ...(site === undefined ? [] : [site.service]),
    ],
    stages: () => ({ producer: producer.counters.snapshot() }),
  };
}

/** Loopback only, or with a site directory mutual TLS for neighbours beside it. */
function transportsOf(
  { siteDirectory, mqttHost: host, mqttPort: port, listen, relations }: HostCollectorConfig,
  deps: { readonly clock: Clock; readonly random: Random; readonly log: Log },
): SiteTransports {
  return new SiteTransports(deps, {
    siteDirectory,
    listen: siteDirectory === undefined ? { host, port } : listen,
    localPort: port,
    roles: new Map(relations.map((relation) => [relation, 'consumer'])),
    keepaliveSeconds: mqttClientDefaults.keepaliveSeconds,
  });
}

/** What this site states to its neighbours: the public keys of this host's epochs. */
function statementsOf(epochKeys: EpochKeyStore, trust: SigningIdentity): KeyStatements {
  return {
    claimOf: (stream, epoch) => epochKeys.claimOf(stream, epoch),
    signer: new StatementSigner(trust),
  };
}
