import { join } from 'node:path';

import { Hono } from 'hono';

import { ControlServer } from '../../common/control/control-server.ts';
import { relayPaths, type RelayStatus } from '../../common/control/relay-answer.ts';
import { SystemClock, type Clock } from '../../common/runtime/clock.ts';
import { createLog, type Log } from '../../common/runtime/log.ts';
import { makeDirectory } from '../../common/runtime/make-directory.ts';
import { SystemRandom, type Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import type { Database } from '../../common/sqlite/database.ts';
import {
  crashSuspecting,
  openSoundDatabase,
  setAsideFiles,
} from '../../common/sqlite/set-aside.ts';
import { consumerDefaults } from '../consumer/consumer-options.ts';
import type { EmbeddedBroker } from '../mqtt/embedded-broker.ts';
import { SiteTransports } from '../mqtt/site-transports.ts';
import { producerDefaults } from '../producer/producer-options.ts';
import type { RelayConfig } from './relay-config.ts';
import { migrateRelayLog } from './relay-log-schema.ts';
import type { DownstreamLink, UpstreamLink } from './relay-options.ts';
import { Relay } from './relay.ts';
import { relayedVms } from './relayed-vms.ts';

/** What a test replaces; everything else is built from the configuration. */
export interface RelayOverrides {
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
  const deps = { clock, random, log };
  makeDirectory(config.dataDirectory, 0o700);
  const database = openSoundDatabase(
    deps,
    join(config.dataDirectory, 'relay.db'),
    { synchronous: 'NORMAL', walAutoCheckpointPages: 4_096 },
    migrateRelayLog,
  );
  const { transports, ...links } = neighbours(config, deps);
  const { broker } = transports;
  const relay = new Relay(
    { database, ...deps, onCorrupt: crashSuspecting(database.name) },
    {
      retention: { bytesMax: config.logBytesMax, ageMaxMs: config.logAgeMaxMs },
      consumer: consumerDefaults,
      producer: producerDefaults,
    },
    links,
  );
  const status = (): RelayStatus => ({
    listens: addressOf(broker, config),
    neighbours: config.relations.map(({ relation, direction }) => ({
      relation,
      direction,
      isLive: relay.isLive(relation),
    })),
    vms: relayedVms(relay.log, log),
    logBytes: relay.logBytes(),
    setAside: setAsideFiles(config.dataDirectory),
    stages: relay.stages(),
  });
  const control = new ControlServer(
    new Hono().get(relayPaths.status, (context) => context.json(status())),
    deps,
    {
      name: 'relay',
      socketPath: config.controlSocket ?? join(config.dataDirectory, 'control.sock'),
    },
  );
  const closing = databaseService(database);
  return {
    service: new ServiceGroup('relay', [closing, transports.identity, relay, control]),
    relay,
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
  deps: { readonly clock: Clock; readonly random: Random; readonly log: Log },
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
  const links = config.relations.map(({ relation, direction, dial, vms, kinds, standing }) => ({
    relation,
    direction,
    transport: transports.to(relation, dial),
    may: { vms: vms === 'all' ? ('all' as const) : new Set<string>(vms), kinds: new Set(kinds) },
    isStanding: standing,
  }));
  return {
    transports,
    upstream: links.filter(({ direction }) => direction === 'upstream'),
    downstream: links.filter(({ direction }) => direction === 'downstream'),
  };
}

function addressOf(
  broker: EmbeddedBroker | undefined,
  { siteDirectory }: RelayConfig,
): string | null {
  if (broker?.isConnected !== true) return null;
  return siteDirectory === undefined ? broker.url : broker.neighbourUrl;
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
