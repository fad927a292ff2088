import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';

import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient, ControlError } from '../../common/control/control-client.ts';
import { ControlServer } from '../../common/control/control-server.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import { Supervisor } from '../../guest-agent/supervisor/supervisor.ts';
import type { DataDirectory } from '../data-directory.ts';
import { ChildProcessService } from './child-process-service.ts';
import { machineDescriptor } from './machine-descriptor.ts';
import { MountPart } from './mount-part.ts';
import { mqttUrlOf, processConfigs, type UpSettings } from './process-configs.ts';
import type { ProcessPart } from './process-part.ts';
import { RotatingFile } from './rotating-file.ts';
import type { UpStatus } from './up-status.ts';

export interface UpDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** With --verbose: gets what the processes log, too. */
  readonly takeOutput?: (process: string, chunk: Buffer) => void;
  readonly hostName: string;
}

/** How the parts are made; a test replaces one. */
export interface UpParts {
  readonly primarySite: ProcessPart;
  readonly hostCollector: ProcessPart;
  /** The mount with its supervisor, and the agent behind it. */
  readonly guestAgent: ProcessPart;
}

export interface Up extends Service {
  status(): UpStatus;
  /** All parts at once; for a second Ctrl-C. */
  stopNow(): Promise<void>;
}

/**
 * All of Isobar on one machine.
 *
 *   start:  control socket (one instance a data directory) -> reader -> collector -> this machine's descriptor -> mount
 *   stop:   the same backwards, so that what was saved last still arrives; then sockets and mount point are removed
 */
export function buildUp(
  settings: UpSettings,
  dependencies: UpDependencies,
  overrides: Partial<UpParts> = {},
): Up {
  const { directory } = settings;
  const parts: UpParts = { ...defaultParts(settings, dependencies), ...overrides };
  const processes = [parts.guestAgent, parts.hostCollector, parts.primarySite];
  const status = (): UpStatus => ({
    dataDirectory: directory.path,
    mount: settings.mount,
    mqttUrl: mqttUrlOf(settings.mqttPort),
    processes: processes.map((process) => process.status()),
  });
  const app = new Hono().get('/v1/status', (context) => context.json(status()));
  const control = new ControlServer(app, dependencies, {
    name: 'isobar up',
    socketPath: directory.sockets.up,
  });
  const group = new ServiceGroup('up', [
    control,
    new Places(settings),
    parts.primarySite,
    parts.hostCollector,
    new MachineRegistration(directory, dependencies),
    parts.guestAgent,
  ]);
  return {
    name: 'up',
    start: () => group.start(),
    stop: () => group.stop(),
    status,
    stopNow: async () => {
      await Promise.all(processes.map((process) => process.stopNow()));
    },
  };
}

function defaultParts(settings: UpSettings, dependencies: UpDependencies): UpParts {
  const part = (name: string): ProcessPart => childPart(name, settings.directory, dependencies);
  return {
    primarySite: part('primary-site'),
    hostCollector: part('host-collector'),
    guestAgent: mountPart(settings, dependencies),
  };
}

/** The mount, held by a supervisor in this process, and the agent behind it. */
function mountPart(settings: UpSettings, dependencies: UpDependencies): ProcessPart {
  const { directory, mount } = settings;
  const name = 'guest-agent';
  let file: RotatingFile | undefined;
  const supervisor = new Supervisor(dependencies, {
    mountPath: mount,
    entry: compiledEntry(`${name}/main.ts`),
    args: ['--config', configPath(directory, name)],
    readyTimeoutMs: agentReadyMaxMs,
    drainTimeoutMs: agentDrainMaxMs,
    takeOutput: (chunk) => {
      file ??= new RotatingFile(join(directory.logs, `${name}.log`));
      file.write(chunk);
      dependencies.takeOutput?.(name, chunk);
    },
  });
  return new MountPart(supervisor, dependencies.clock);
}

const agentReadyMaxMs = 30_000;
const agentDrainMaxMs = 10_000;

/** A process of ours whose output goes to `logs/NAME.log`. */
function childPart(
  name: string,
  directory: DataDirectory,
  dependencies: UpDependencies,
): ProcessPart {
  let file: RotatingFile | undefined;
  const child = new ChildProcessService(
    {
      name,
      entry: compiledEntry(`${name}/main.ts`),
      arguments: ['--config', configPath(directory, name)],
    },
    {
      ...dependencies,
      takeOutput: (chunk) => {
        file?.write(chunk);
        dependencies.takeOutput?.(name, chunk);
      },
    },
  );
  return {
    name,
    start: () => {
      file = new RotatingFile(join(directory.logs, `${name}.log`));
      return child.start();
    },
    stop: () => child.stop(),
    status: () => child.status(),
    stopNow: () => {
      child.kill();
      return Promise.resolve();
    },
  };
}

function configPath(directory: DataDirectory, name: string): string {
  return join(directory.config, `${name}.json`);
}

/** The directories and generated files that the processes expect, and what must be gone afterwards. */
class Places implements Service {
  readonly name = 'places';
  readonly #settings: UpSettings;

  constructor(settings: UpSettings) {
    this.#settings = settings;
  }

  start(): Promise<void> {
    const { directory } = this.#settings;
    mkdirSync(directory.config, { recursive: true });
    const configs = processConfigs(this.#settings);
    for (const [name, config] of [
      ['guest-agent', configs.guestAgent],
      ['host-collector', configs.hostCollector],
      ['primary-site', configs.primarySite],
    ] as const) {
      writeFileSync(configPath(directory, name), `${JSON.stringify(config, undefined, 2)}\n`);
    }
    return Promise.resolve();
  }

  stop(): Promise<void> {
    const { directory } = this.#settings;
    rmSync(directory.sockets.guestChannel, { force: true });
    return Promise.resolve();
  }
}

/** Has the collector measure this machine, unless it knows it from an earlier run. */
class MachineRegistration implements Service {
  readonly name = 'machine-registration';
  readonly #collector: ControlClient;
  readonly #directory: DataDirectory;
  readonly #hostName: string;

  constructor(directory: DataDirectory, dependencies: UpDependencies) {
    this.#directory = directory;
    this.#hostName = dependencies.hostName;
    this.#collector = new ControlClient({
      socketPath: directory.sockets.hostCollector,
      peer: 'the host collector',
      startCommand: 'isobar up',
    });
  }

  async start(): Promise<void> {
    const descriptor = machineDescriptor(this.#hostName, this.#directory.sockets.guestChannel);
    try {
      await this.#collector.call('POST', collectorPaths.vms, descriptor, vmAnswerSchema);
    } catch (error) {
      if (!(error instanceof ControlError) || error.peerCode !== 'vm-exists') throw error;
    }
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}
