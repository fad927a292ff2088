import { LogCursors, type MayHave } from '../../broker/log/log-cursors.ts';
import { LogLosses } from '../../broker/log/log-losses.ts';
import { LogRetention } from '../../broker/log/log-retention.ts';
import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import type { MqttTransport } from '../../broker/mqtt/mqtt-transport.ts';
import { SiteTransports } from '../../broker/mqtt/site-transports.ts';
import type { FrameAppender, FrameForwarder, KeyStatements } from '../../broker/ports.ts';
import { byTransport, producerDefaults } from '../../broker/producer/producer-options.ts';
import { Producer } from '../../broker/producer/producer.ts';
import { policyAllows, streamPolicyOf } from '../../broker/stream-policy.ts';
import type { CollectorNeighbour } from '../../common/control/collector-answer.ts';
import type { SigningIdentity } from '../../common/identity/tls-identity.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { PruningService } from '../../common/runtime/pruning-service.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { Service } from '../../common/runtime/service.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import { LossSigner } from '../../common/signing/loss-signer.ts';
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
  /** Who may subscribe, and whether it has and is connected. */
  readonly neighbours: () => readonly CollectorNeighbour[];
}

interface Deps {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly configPath?: string | undefined;
}

/** The stream log of `deps.database`, and its producers: one on our broker or an external one, one for each neighbour that we dial. */
export function mqttStreams(deps: Deps, config: HostCollectorConfig): StreamParts {
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
  const transports = transportsOf(config, deps);
  const { trust } = transports;
  const allows = policyOf(config);
  const cursors = new LogCursors({ ...deps, mayHave: allows });
  const losses = new LossSigner(trust);
  const statements = trust === undefined ? {} : { statements: statementsOf(epochKeys, trust) };
  const links = linksOf(config, transports);
  const producers = byTransport(links).map(
    ([transport, relations]) =>
      new Producer(
        { ...deps, transport, streamLog, cursors, allows, losses, ...statements },
        { ...producerDefaults, relations },
      ),
  );
  const { siteDirectory, dataDirectory, control } = config;
  const site = siteServicesOf(
    { ...deps, site: transports.site },
    { siteDirectory, dataDirectory, listen: control?.listen, controlUrls: controlUrlsOf(config) },
  );
  return {
    appender: streamLog,
    forwarder: {
      forward: (frames) => {
        for (const producer of producers) producer.forward(frames);
      },
    },
    protector,
    epochKeys,
    services: [
      pruningOf(deps, config, { cursors, producers }),
      transports.identity,
      ...new Set(links.map(({ transport }) => transport)),
      ...producers,
      ...(site === undefined ? [] : [site.service]),
    ],
    neighbours: () =>
      links.map(({ relation, transport }) => ({
        relation,
        isLive: producers.some((producer) => producer.hasSession(relation)),
        failure: transport.failure ?? null,
      })),
    stages: () =>
      Object.fromEntries(
        producers.map(({ counters }, index) => [
          index === 0 ? 'producer' : `producer/${index}`,
          counters.snapshot(),
        ]),
      ),
  };
}

/** What the log has to give up is lost: told at once. */
function pruningOf(
  deps: Deps,
  config: HostCollectorConfig,
  { cursors, producers }: { readonly cursors: LogCursors; readonly producers: readonly Producer[] },
): Service {
  const givenUp = new LogLosses(deps);
  const retention = new LogRetention(
    { ...deps, cursors, givenUp },
    { bytesMax: config.logBytesMax, ageMaxMs: config.logAgeMaxMs },
  );
  return new PruningService(deps, {
    name: 'log-retention',
    intervalMs: config.logPruneIntervalMs,
    prune: () => {
      const { lostFrames, more } = retention.prune();
      if (lostFrames > 0) {
        deps.log.warn('log-frames-lost', { frameCount: lostFrames });
        const lost = givenUp.take();
        for (const producer of producers) producer.declareLost(lost);
      }
      return more;
    },
  });
}

/** How each neighbour is met. */
function linksOf(
  { relations, mqttUrl }: HostCollectorConfig,
  transports: SiteTransports,
): readonly { readonly relation: string; readonly transport: MqttTransport }[] {
  const isShared = relations.some(({ dial }) => dial === undefined);
  const shared = isShared ? transports.to('any', mqttUrl, 'external') : undefined;
  return relations.flatMap(({ relation, dial }) => {
    const transport = dial === undefined ? shared : transports.to(relation, dial);
    return transport === undefined ? [] : [{ relation, transport }];
  });
}

/** Loopback only, or with a site directory mutual TLS for neighbours beside it. */
function transportsOf(config: HostCollectorConfig, deps: Deps): SiteTransports {
  const { siteDirectory, mqttHost: host, mqttPort: port, relations, keepaliveSeconds } = config;
  // Where we dial everybody, nothing listens.
  const listens = relations.some(({ dial }) => dial === undefined);
  const listen = siteDirectory === undefined ? { host, port } : config.listen;
  return new SiteTransports(deps, {
    siteDirectory,
    listen: listens ? listen : undefined,
    localPort: listens ? port : undefined,
    roles: new Map(relations.map(({ relation }) => [relation, 'consumer'])),
    keepaliveSeconds,
  });
}

/** Which streams each neighbour may have; a relation that the configuration has no more may have none. */
function policyOf({ relations }: HostCollectorConfig): MayHave {
  const policies = new Map(relations.map((each) => [each.relation, streamPolicyOf(each)]));
  return (relation, stream) => {
    const policy = policies.get(relation);
    return policy !== undefined && policyAllows(policy, stream);
  };
}

function controlUrlsOf({ relations }: HostCollectorConfig): ReadonlyMap<string, string> {
  return new Map(
    relations.flatMap(({ relation, controlUrl }) =>
      controlUrl === undefined ? [] : [[relation, controlUrl] as const],
    ),
  );
}

/** What this site states to its neighbours: the public keys of this host's epochs. */
function statementsOf(epochKeys: EpochKeyStore, trust: SigningIdentity): KeyStatements {
  return {
    claimOf: (stream, epoch) => epochKeys.claimOf(stream, epoch),
    signer: new StatementSigner(trust),
  };
}
