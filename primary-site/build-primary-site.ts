import { join } from 'node:path';

import { consumerDefaults } from '../broker/consumer/consumer-options.ts';
import { Consumer } from '../broker/consumer/consumer.ts';
import type { EmbeddedBroker } from '../broker/mqtt/embedded-broker.ts';
import type { MqttTransport } from '../broker/mqtt/mqtt-transport.ts';
import { SiteTransports, type SiteTransportDeps } from '../broker/mqtt/site-transports.ts';
import {
  SubscriptionAsker,
  subscriptionAskerDefaults,
} from '../broker/relay/subscription-asker.ts';
import { namedStreams, policyAllows, streamPolicyOf } from '../broker/stream-policy.ts';
import { ControlServer } from '../common/control/control-server.ts';
import { SystemClock, type Clock } from '../common/runtime/clock.ts';
import { silentLog, type Log } from '../common/runtime/log.ts';
import { makeDirectory } from '../common/runtime/make-directory.ts';
import { PruningService } from '../common/runtime/pruning-service.ts';
import { SystemRandom, type Random } from '../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../common/runtime/service.ts';
import type { KeyStatement, VerifiedClaim } from '../common/signing/key-statement.ts';
import { LossJudge } from '../common/signing/loss-judge.ts';
import { StatementVerifier } from '../common/signing/statement-verifier.ts';
import { siteServicesOf } from '../common/site-control/site-services.ts';
import { crashSuspecting, setAsideFiles } from '../common/sqlite/set-aside.ts';
import { createReaderApi } from './api/reader-api.ts';
import { JsonTopics } from './json-topics.ts';
import type { PrimarySiteConfig } from './primary-site-config.ts';
import { readReaderKeys } from './sealing/reader-keys.ts';
import type { SignaturePolicy } from './sealing/signature-inspector.ts';
import { PrimaryStore } from './store/primary-store.ts';
import { StoreRetention } from './store/store-retention.ts';

/** What a test replaces; everything else is built from the configuration. */
export interface PrimarySiteOverrides {
  /** Where the configuration is, for warnings. */
  readonly configPath?: string;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
  readonly transport?: MqttTransport;
}

export interface PrimarySite {
  /** Starts store, transport, consumer, JSON topics and API, in this order. */
  readonly service: Service;
  readonly store: PrimaryStore;
  readonly consumer: Consumer;
}

/** Wires a primary site's reader; nothing runs before `service.start()`. */
export function buildPrimarySite(
  config: PrimarySiteConfig,
  overrides: PrimarySiteOverrides = {},
): PrimarySite {
  const clock = overrides.clock ?? new SystemClock();
  const random = overrides.random ?? new SystemRandom();
  const log = overrides.log ?? silentLog;
  const deps = { clock, random, log, configPath: overrides.configPath };
  const store = buildStore(config, deps);
  const { relation } = config;
  const transports = transportsOf(config, deps);
  const transport =
    overrides.transport ??
    transports.to(relation, config.mqttUrl, config.externalBroker ? 'external' : 'neighbour');
  const statements = verifierOf(transports, { ...deps, store }, relation);
  const policy = streamPolicyOf(config);
  const inspector = store.inspector(signaturesOf(config));
  const losses = judgeOf(transports, store, config);
  const consumer = new Consumer(
    {
      transport,
      sink: store,
      inspector,
      takes: (stream) => policyAllows(policy, stream),
      losses,
      ...(statements === undefined ? {} : { statements }),
      ...deps,
    },
    { ...consumerDefaults, relation, storedBy: 'final-reader' },
  );
  const jsonTopics = jsonTopicsOf(config, transports.broker, transport, { store, log });
  const app = createReaderApi({
    store,
    log,
    status: () => ({
      isLive: consumer.isLive,
      failure: transport.failure ?? null,
      vms: store.vmStatuses(),
      integrity: store.integrity(),
      waitingFrames: store.waitingFrames(),
      setAside: setAsideFiles(config.dataDirectory),
      stages: {
        consumer: consumer.counters.snapshot(),
        store: store.counters.snapshot(),
        losses: losses.counters.snapshot(),
        ...(statements === undefined ? {} : { statements: statements.counters.snapshot() }),
        ...(config.keysDirectory === undefined
          ? {}
          : { 'sealed-files': store.fileCounters.snapshot() }),
        ...Object.fromEntries(
          jsonTopics.map(({ name, counters }) => [name, counters.snapshot()] as const),
        ),
      },
    }),
  });
  const service = new ServiceGroup('primary-site', [
    directoryService(config.dataDirectory),
    store,
    retentionOf(config, store, deps),
    ...jsonTopics,
    transports.identity,
    ...new Set([transport, ...(transports.broker === undefined ? [] : [transports.broker])]),
    consumer,
    ...signedRequests(config, { ...deps, site: transports.site }),
    new ControlServer(app, deps, { name: 'primary-site', socketPath: config.controlSocket }),
  ]);
  return { service, store, consumer };
}

/** Revocation lists against the producer's, streams on demand, and what else sites ask each other. */
function signedRequests(
  { siteDirectory, dataDirectory, relation, control, controlUrl, ask, kinds }: PrimarySiteConfig,
  deps: Parameters<typeof siteServicesOf>[0],
): Service[] {
  const controlUrls = new Map(controlUrl === undefined ? [] : [[relation, controlUrl]]);
  const options = { siteDirectory, dataDirectory, listen: control?.listen, controlUrls };
  const services = siteServicesOf(deps, options);
  if (services === undefined) return [];
  const client = services.clients.get(relation);
  if (ask === undefined || client === undefined) return [services.service];
  const wanted = () => namedStreams(ask, kinds);
  const asker = new SubscriptionAsker(
    { ...deps, client },
    { ...subscriptionAskerDefaults, relation, wanted, hopCount: () => 0 },
  );
  return [services.service, asker];
}

function retentionOf(
  { retention: options }: PrimarySiteConfig,
  store: PrimaryStore,
  deps: { readonly clock: Clock; readonly log: Log },
): Service {
  const retention = new StoreRetention({ store, clock: deps.clock }, options);
  return new PruningService(deps, {
    name: 'store-retention',
    intervalMs: options.intervalMs,
    prune: () => retention.prune(),
  });
}

function buildStore(
  { dataDirectory, seriesMax, keysDirectory, kinds }: PrimarySiteConfig,
  deps: { readonly clock: Clock; readonly log: Log },
): PrimaryStore {
  const path = join(dataDirectory, 'primary-site.db');
  return new PrimaryStore(deps, {
    path,
    onCorrupt: crashSuspecting(path),
    seriesMax,
    tapsStatus: !kinds.includes('data'),
    keys: keysDirectory === undefined ? [] : readReaderKeys(keysDirectory),
  });
}

/** The producer's broker, or ours that it dials. */
function transportsOf(config: PrimarySiteConfig, deps: SiteTransportDeps): SiteTransports {
  const { siteDirectory, listen, localPort, keepaliveSeconds, relation } = config;
  const roles = new Map([[relation, 'producer' as const]]);
  return new SiteTransports(deps, { siteDirectory, listen, localPort, keepaliveSeconds, roles });
}

/** A site among sites takes nothing that is not signed; on one machine there may be nobody who signs. */
function signaturesOf({ signatures, siteDirectory }: PrimarySiteConfig): SignaturePolicy {
  return signatures ?? (siteDirectory === undefined ? 'when-stated' : 'required');
}

/** Whoever is met without a site directory has no authority that could be pinned: nothing of it is taken. */
function verifierOf(
  { trust }: SiteTransports,
  { store, ...deps }: { readonly store: PrimaryStore; readonly clock: Clock; readonly log: Log },
  relation: string,
): StatementVerifier | undefined {
  if (trust === undefined) return undefined;
  const claims = {
    isKnown: (statement: KeyStatement) => store.hasKeyStatement(statement),
    accept: (claim: VerifiedClaim) => store.acceptKeyStatement(claim),
  };
  return new StatementVerifier({ ...deps, identity: trust, store: claims }, relation);
}

/** A neighbour's word that frames are lost counts under its signature alone, where frames are taken under theirs alone. */
function judgeOf(
  { trust }: SiteTransports,
  store: PrimaryStore,
  config: PrimarySiteConfig,
): LossJudge {
  const options = { relation: config.relation, isRequired: signaturesOf(config) === 'required' };
  return new LossJudge(
    {
      identity: trust,
      onRefused: (claim, refusal) => {
        store.noteLossRefused(claim, refusal);
      },
    },
    options,
  );
}

/** Where readings are published for any MQTT client; what our own readers get is none of a neighbour's business. */
function jsonTopicsOf(
  { jsonTopics, siteDirectory, localPort }: PrimarySiteConfig,
  broker: EmbeddedBroker | undefined,
  neighbour: MqttTransport,
  deps: { readonly store: PrimaryStore; readonly log: Log },
): readonly JsonTopics[] {
  if (!jsonTopics) return [];
  const own = localPort === undefined ? undefined : broker;
  const transport = siteDirectory === undefined ? (broker ?? neighbour) : own;
  return transport === undefined ? [] : [new JsonTopics({ ...deps, transport })];
}

function directoryService(path: string): Service {
  return {
    name: 'data-directory',
    start: () => {
      makeDirectory(path, 0o700);
      return Promise.resolve();
    },
    stop: () => Promise.resolve(),
  };
}
