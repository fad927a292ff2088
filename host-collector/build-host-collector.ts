import { join } from 'node:path';

import type { Hono } from 'hono';

import { ControlServer } from '../common/control/control-server.ts';
import { SystemClock, type Clock } from '../common/runtime/clock.ts';
import { createLog, type Log } from '../common/runtime/log.ts';
import { makeDirectory } from '../common/runtime/make-directory.ts';
import { SystemRandom, type Random } from '../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../common/runtime/service.ts';
import { openDatabase, type Database } from '../common/sqlite/database.ts';
import type { HostCollectorConfig } from './config.ts';
import { createControlApi } from './control/control-api.ts';
import { migrateCollector } from './origin/collector-schema.ts';
import { mqttStreams } from './origin/mqtt-streams.ts';
import { Origin } from './origin/origin.ts';
import { StoreMark } from './origin/store-mark.ts';
import { MachineProbe } from './probes/machine-probe.ts';
import { StoredProcessMemory } from './probes/process-memory.ts';
import { ProcessProbe } from './probes/process-probe.ts';
import { engineBoundsDefault } from './specifiers/engine-bounds.ts';
import { DescriptorStore } from './vm/descriptor-store.ts';
import { guestChannelClients } from './vm/guest-client.ts';
import { VmSupervisor, type GuestClientFactory, type ProbeFactory } from './vm/vm-supervisor.ts';

/** What tests, and `isobar up`, may replace. */
export interface HostCollectorOverrides {
  /** Where the configuration is, for warnings. */
  readonly configPath?: string;
  readonly makeStreams?: typeof mqttStreams;
  readonly makeGuest?: GuestClientFactory;
  readonly makeProbe?: ProbeFactory;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
}

export interface HostCollector {
  /** Starts and stops everything, the database included. */
  readonly service: Service;
  readonly vms: VmSupervisor;
  readonly origin: Origin;
  readonly api: Hono;
}

/** Where the control API of a collector with this configuration listens. */
export function controlSocketPath(config: HostCollectorConfig): string {
  return config.controlSocket ?? join(config.dataDirectory, 'control.sock');
}

/**
 * Composes a host collector: opens its database, builds every part, starts nothing.
 * @throws OperatingError when the directory can't be made, DatabaseError when the database can't be used.
 */
export function buildHostCollector(
  config: HostCollectorConfig,
  overrides: HostCollectorOverrides = {},
): HostCollector {
  const clock = overrides.clock ?? new SystemClock();
  const random = overrides.random ?? new SystemRandom();
  const log = overrides.log ?? createLog('host-collector', config.logLevel);
  makeDirectory(config.dataDirectory, 0o700);
  const database = openDatabase(join(config.dataDirectory, 'collector.db'), {
    synchronous: config.synchronous,
    walAutoCheckpointPages: 4_096,
  });
  migrateCollector(database);
  const makeStreams = overrides.makeStreams ?? mqttStreams;
  const streams = makeStreams(
    { database, clock, random, log, configPath: overrides.configPath },
    config,
  );
  const { revisionHorizonMs, closedWindowsMax, statusIntervalMs, probeIntervalMinMs } = config;
  const origin = new Origin(
    {
      database,
      appender: streams.appender,
      forwarder: streams.forwarder,
      ...(streams.protector === undefined ? {} : { protector: streams.protector }),
      clock,
      log,
      mark: new StoreMark({ database, random, log }, join(config.dataDirectory, 'collector.mark')),
    },
    {
      statusIntervalMs,
      engineBounds: { ...engineBoundsDefault, revisionHorizonMs, closedWindowsMax },
    },
  );
  const vms = new VmSupervisor(
    {
      store: new DescriptorStore(database),
      origin,
      clock,
      log,
      makeGuest: overrides.makeGuest ?? guestChannelClients({ clock, log, random }),
      makeProbe: overrides.makeProbe ?? defaultProbes({ clock, database }),
    },
    { probeIntervalMinMs },
  );
  const api = createControlApi({
    vms,
    streamStages: streams.stages,
    neighbours: streams.neighbours,
  });
  const control = new ControlServer(
    api,
    { clock, log },
    { name: 'host-collector', socketPath: controlSocketPath(config) },
  );
  const service = new ServiceGroup('host-collector', [
    new DatabaseService(database),
    ...streams.services,
    origin,
    vms,
    control,
  ]);
  return { service, vms, origin, api };
}

/** The probes that measure this machine and its processes. */
export function defaultProbes(deps: {
  readonly clock: Clock;
  readonly database: Database;
}): ProbeFactory {
  const { clock, database } = deps;
  return (descriptor, vm) => {
    if (descriptor.kind === 'machine') return new MachineProbe();
    if (descriptor.kind === 'process') {
      const memory = new StoredProcessMemory(database, vm);
      return new ProcessProbe({ clock, memory }, descriptor.pid);
    }
    return null;
  };
}

/** Closes the database after everything that uses it. */
class DatabaseService implements Service {
  readonly name = 'collector-database';
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  stop(): Promise<void> {
    if (this.#database.open) this.#database.close();
    return Promise.resolve();
  }
}
