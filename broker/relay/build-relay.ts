import { join } from 'node:path';

import { Hono } from 'hono';

import { ControlServer } from '../../common/control/control-server.ts';
import { relayPaths, type RelayStatus } from '../../common/control/relay-answer.ts';
import { SystemClock, type Clock } from '../../common/runtime/clock.ts';
import { createLog, type Log } from '../../common/runtime/log.ts';
import { makeDirectory } from '../../common/runtime/make-directory.ts';
import { SystemRandom, type Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import { siteServicesOf, type SiteServices } from '../../common/site-control/site-services.ts';
import { serveSubscriptions } from '../../common/site-control/subscription-endpoint.ts';
import type { Database } from '../../common/sqlite/database.ts';
import {
  crashSuspecting,
  openSoundDatabase,
  setAsideFiles,
} from '../../common/sqlite/set-aside.ts';
import type { StreamId } from '../../common/wire/frame.ts';
import { consumerDefaults } from '../consumer/consumer-options.ts';
import type { EmbeddedBroker } from '../mqtt/embedded-broker.ts';
import { SiteTransports, type SiteTransportDeps } from '../mqtt/site-transports.ts';
import { producerDefaults } from '../producer/producer-options.ts';
import { namedStreams, streamPolicyOf } from '../stream-policy.ts';
import { OnDemandSubscriptions } from './on-demand-subscriptions.ts';
import { quotasOf, type RelayConfig } from './relay-config.ts';
import { migrateRelayLog } from './relay-log-schema.ts';
import type { DownstreamLink, UpstreamLink } from './relay-options.ts';
import { RelaySubscriptions } from './relay-subscriptions.ts';
import { Relay, type RelayOptions } from './relay.ts';
import { relayedVms } from './relayed-vms.ts';
import { SubscriptionAsker, subscriptionAskerDefaults } from './subscription-asker.ts';

/** How often it is looked which subscriptions are over, at most. */
const expiryCheckIntervalMs = 30_000;

/** What a test replaces; everything else is built from the configuration. */
export interface RelayOverrides {
  /** Where the configuration is, for warnings. */
  readonly configPath?: string;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
}

/**
 * Composes a relay: opens its database, builds every part, starts nothing.
 * A damaged database is set aside and healed from the neighbours.
 * @throws DatabaseError when the database can't be used.
 */
export function buildRelay(
  config: RelayConfig,
  overrides: RelayOverrides = {},
): { readonly service: Service; readonly relay: Relay } {
  const clock = overrides.clock ?? new SystemClock();
  const random = overrides.random ?? new SystemRandom();
  const log = overrides.log ?? createLog('relay', config.logLevel);
  const deps = { clock, random, log, configPath: overrides.configPath };
  makeDirectory(config.dataDirectory, 0o700);
  const database = openSoundDatabase(
    deps,
    join(config.dataDirectory, 'relay.db'),
    { synchronous: 'NORMAL', walAutoCheckpointPages: 4_096 },
    migrateRelayLog,
  );
  const subscriptions = subscriptionsOf(config, { database, clock });
  const { transports, ...links } = neighbours(config, deps, subscriptions);
  const { trust } = transports;
  const relay = new Relay(
    {
      database,
      ...deps,
      onCorrupt: crashSuspecting(database.name),
      ...(trust === undefined ? {} : { trust }),
    },
    {
      siteQuota: config.quota,
      retention: retentionOf(config),
      consumer: consumerDefaults,
      producer: producerDefaults,
    },
    links,
  );
  const site = siteServices(config, { ...deps, transports, subscriptions, relay });
  const parts = { relay, subscriptions, transports, server: site?.services.server, log };
  const control = new ControlServer(
    new Hono().get(relayPaths.status, (context) => context.json(statusOf(config, parts))),
    deps,
    { name: 'relay', socketPath: relaySocketPath(config) },
  );
  const closing = databaseService(database);
  return {
    service: new ServiceGroup('relay', [
      closing,
      transports.identity,
      relay,
      ...(site === undefined ? [] : [site.services.service, ...site.keeping]),
      control,
    ]),
    relay,
  };
}

function statusOf(
  config: RelayConfig,
  parts: {
    readonly relay: Relay;
    readonly subscriptions: OnDemandSubscriptions;
    readonly transports: SiteTransports;
    readonly server: SiteServices['server'];
    readonly log: Log;
  },
): RelayStatus {
  const { relay, subscriptions, transports, server, log } = parts;
  const { broker } = transports;
  return {
    listens: addressOf(broker, config),
    neighbours: config.relations.map(({ relation, direction }) => ({
      relation,
      direction,
      isLive: relay.isLive(relation),
      failure: transports.failureOf(relation),
      delays: relay.delays(relation),
    })),
    vms: relayedVms(relay.log, log).map((vm) => ({
      ...vm,
      delays: vm.from === null ? null : relay.delays(vm.from, vm.vm),
    })),
    subscriptions: [...subscriptions.list()],
    logBytes: relay.logBytes(),
    bufferedBytes: broker?.bufferedBytes ?? 0,
    control: server?.url ?? null,
    setAside: setAsideFiles(config.dataDirectory),
    stages: {
      ...relay.stages(),
      ...(server === undefined ? {} : { 'site-control': server.counts() }),
    },
  };
}

function retentionOf(config: RelayConfig): RelayOptions['retention'] {
  return {
    bytesMax: config.logBytesMax,
    ageMaxMs: config.logAgeMaxMs,
    intervalMs: config.logPruneIntervalMs,
  };
}

interface Neighbours {
  readonly transports: SiteTransports;
  readonly upstream: readonly UpstreamLink[];
  readonly downstream: readonly DownstreamLink[];
}

/** A client for each neighbour that we dial; our broker for all that dial us. */
function neighbours(
  config: RelayConfig,
  deps: SiteTransportDeps,
  subscriptions: OnDemandSubscriptions,
): Neighbours {
  const transports = new SiteTransports(deps, {
    siteDirectory: config.siteDirectory,
    listen: config.listen,
    localPort: config.localPort,
    keepaliveSeconds: config.keepaliveSeconds,
    roles: new Map(
      config.relations.map(({ relation, direction }) => [
        relation,
        direction === 'upstream' ? 'producer' : 'consumer',
      ]),
    ),
  });
  const links = config.relations.map(({ relation, direction, dial, standing, ...rest }) => ({
    relation,
    direction,
    transport: transports.to(relation, dial, rest.externalBroker ? 'external' : 'neighbour'),
    may: streamPolicyOf(rest),
    quotas: quotasOf(rest),
    isStanding: standing,
    ...(rest.onDemand
      ? { hasAskedFor: (stream: StreamId) => subscriptions.has(relation, stream) }
      : {}),
  }));
  return {
    transports,
    upstream: links.filter(({ direction }) => direction === 'upstream'),
    downstream: links.filter(({ direction }) => direction === 'downstream'),
  };
}

/** What neighbours may ask for is what their relation allows. */
function subscriptionsOf(
  { relations, subscriptionLifeMs: lifeMs }: RelayConfig,
  deps: { readonly database: Database; readonly clock: Clock },
): OnDemandSubscriptions {
  const onDemand = relations.filter((each) => each.onDemand);
  const policies = new Map(onDemand.map((each) => [each.relation, streamPolicyOf(each)]));
  return new OnDemandSubscriptions(deps, { policies, lifeMs });
}

/** Signed requests from and to neighbours; undefined for a relay that is no site. */
function siteServices(
  config: RelayConfig,
  parts: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
    readonly transports: SiteTransports;
    readonly subscriptions: OnDemandSubscriptions;
    readonly relay: Relay;
  },
): { readonly services: SiteServices; readonly keeping: readonly Service[] } | undefined {
  const { siteDirectory, dataDirectory, control, relations } = config;
  const { transports, subscriptions, relay, ...deps } = parts;
  const controlUrls = new Map(
    relations.flatMap(({ relation, controlUrl }) =>
      controlUrl === undefined ? [] : [[relation, controlUrl] as const],
    ),
  );
  const lifeMs = config.subscriptionLifeMs;
  const keeper = new RelaySubscriptions(
    { ...deps, subscriptions, relay },
    { lifeMs, checkIntervalMs: Math.min(lifeMs / 2, expiryCheckIntervalMs) },
  );
  const services = siteServicesOf(
    { ...deps, site: transports.site },
    { siteDirectory, dataDirectory, listen: control?.listen, controlUrls },
    serveSubscriptions(keeper),
  );
  if (services === undefined) return undefined;
  const standing = new Set(
    relations
      .filter(({ direction, ask }) => direction === 'upstream' && ask === undefined)
      .map(({ relation }) => relation),
  );
  // What comes without being asked for is not asked for elsewhere: in a ring of sites that would come back here.
  const withoutStanding = (wanted: 'all' | readonly StreamId[]): 'all' | readonly StreamId[] =>
    wanted === 'all'
      ? wanted
      : wanted.filter((stream) => !standing.has(relay.log.newestSourceOf(stream) ?? ''));
  const hopCount = (): number => subscriptions.hopCount + 1;
  const askers = relations.flatMap(({ relation, ask, vms, kinds }) => {
    const client = services.clients.get(relation);
    if (ask === undefined || client === undefined) return [];
    const may = streamPolicyOf({ vms, kinds });
    const wanted = (): 'all' | readonly StreamId[] =>
      ask === 'on-demand' ? withoutStanding(subscriptions.wanted(may)) : namedStreams(ask, kinds);
    const options = { ...subscriptionAskerDefaults, relation, wanted, hopCount };
    const asker = new SubscriptionAsker({ ...deps, client }, options);
    return [{ may, asker, isPassedOn: ask === 'on-demand' }];
  });
  keeper.passTo(askers.filter(({ isPassedOn }) => isPassedOn));
  return { services, keeping: [keeper, ...askers.map(({ asker }) => asker)] };
}

function addressOf(
  broker: EmbeddedBroker | undefined,
  { siteDirectory }: RelayConfig,
): string | null {
  if (broker?.isConnected !== true) return null;
  return siteDirectory === undefined ? broker.url : broker.neighbourUrl;
}

/** Where a relay with this configuration answers. */
function relaySocketPath(config: RelayConfig): string {
  return config.controlSocket ?? join(config.dataDirectory, 'control.sock');
}

/** Closes the database after everything that uses it. */
function databaseService(database: Database): Service {
  return {
    name: 'relay-database',
    start: () => Promise.resolve(),
    stop: () => {
      database.close();
      return Promise.resolve();
    },
  };
}
