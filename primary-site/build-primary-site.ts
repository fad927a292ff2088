import { join } from 'node:path';

import { consumerDefaults } from '../broker/consumer/consumer-options.ts';
import { Consumer } from '../broker/consumer/consumer.ts';
import type { EmbeddedBroker } from '../broker/mqtt/embedded-broker.ts';
import type { MqttTransport } from '../broker/mqtt/mqtt-transport.ts';
import { SiteTransports } from '../broker/mqtt/site-transports.ts';
import { ControlServer } from '../common/control/control-server.ts';
import { SystemClock, type Clock } from '../common/runtime/clock.ts';
import { silentLog, type Log } from '../common/runtime/log.ts';
import { makeDirectory } from '../common/runtime/make-directory.ts';
import { PruningService } from '../common/runtime/pruning-service.ts';
import { SystemRandom, type Random } from '../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../common/runtime/service.ts';
import { crashSuspecting, setAsideFiles } from '../common/sqlite/set-aside.ts';
import { createReaderApi } from './api/reader-api.ts';
import { JsonTopics } from './json-topics.ts';
import type { PrimarySiteConfig } from './primary-site-config.ts';
import { readReaderKeys } from './sealing/reader-keys.ts';
import { PrimaryStore } from './store/primary-store.ts';
import { StoreRetention } from './store/store-retention.ts';

/** What a test replaces; everything else is built from the configuration. */
export interface PrimarySiteOverrides {
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
  const store = buildStore(config, { clock, log });
  const { relation } = config;
  const transports = transportsOf(config, { clock, random, log });
  const transport = overrides.transport ?? transports.to(relation, config.mqttUrl);
  const consumer = new Consumer(
    { transport, sink: store, inspector: store.inspector(config.signatures), clock, random, log },
    { ...consumerDefaults, relation, storedBy: 'final-reader' },
  );
  const jsonTransport = jsonTransportOf(config, transports.broker, transport);
  const jsonTopics =
    jsonTransport === undefined ? [] : [new JsonTopics({ store, transport: jsonTransport, log })];
  const app = createReaderApi({
    store,
    log,
    status: () => ({
      isLive: consumer.isLive,
      vms: store.vmStatuses(),
      integrity: store.integrity(),
      waitingFrames: store.waitingFrames(),
      setAside: setAsideFiles(config.dataDirectory),
      stages: {
        consumer: consumer.counters.snapshot(),
        store: store.counters.snapshot(),
        ...(config.keysDirectory === undefined
          ? {}
          : { 'sealed-files': store.fileCounters.snapshot() }),
        ...Object.fromEntries(
          jsonTopics.map(({ name, counters }) => [name, counters.snapshot()] as const),
        ),
      },
    }),
  });
  const retention = new StoreRetention({ store, clock }, config.retention);
  const service = new ServiceGroup('primary-site', [
    directoryService(config.dataDirectory),
    store,
    new PruningService(
      { clock, log },
      {
        name: 'store-retention',
        intervalMs: config.retention.intervalMs,
        prune: () => retention.prune(),
      },
    ),
    ...jsonTopics,
    transports.identity,
    ...new Set([transport, ...(transports.broker === undefined ? [] : [transports.broker])]),
    consumer,
    new ControlServer(
      app,
      { clock, log },
      { name: 'primary-site', socketPath: config.controlSocket },
    ),
  ]);
  return { service, store, consumer };
}

function buildStore(
  { dataDirectory, seriesMax, keysDirectory }: PrimarySiteConfig,
  deps: { readonly clock: Clock; readonly log: Log },
): PrimaryStore {
  const path = join(dataDirectory, 'primary-site.db');
  return new PrimaryStore(deps, {
    path,
    onCorrupt: crashSuspecting(path),
    seriesMax,
    keys: keysDirectory === undefined ? [] : readReaderKeys(keysDirectory),
  });
}

/** The producer's broker, or ours that it dials. */
function transportsOf(
  config: PrimarySiteConfig,
  deps: { readonly clock: Clock; readonly random: Random; readonly log: Log },
): SiteTransports {
  const { siteDirectory, listen, localPort, keepaliveSeconds, relation } = config;
  const roles = new Map([[relation, 'producer' as const]]);
  return new SiteTransports(deps, { siteDirectory, listen, localPort, keepaliveSeconds, roles });
}

/** Where readings are published for any MQTT client; what our own readers get is none of a neighbour's business. */
function jsonTransportOf(
  { jsonTopics, siteDirectory, localPort }: PrimarySiteConfig,
  broker: EmbeddedBroker | undefined,
  transport: MqttTransport,
): MqttTransport | undefined {
  if (!jsonTopics) return undefined;
  if (siteDirectory === undefined) return broker ?? transport;
  return localPort === undefined ? undefined : broker;
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
