import { rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';

import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient, ControlError } from '../../common/control/control-client.ts';
import { ControlServer } from '../../common/control/control-server.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { makeDirectory } from '../../common/runtime/make-directory.ts';
import { OperatingError, systemErrorCode } from '../../common/runtime/operating-error.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import type { DataDirectory } from '../data-directory.ts';
import { ChildProcessService } from './child-process-service.ts';
import { buildGuestMount } from './guest-mount.ts';
import { machineDescriptor } from './machine-descriptor.ts';
import { mqttUrlOf, processConfigs, type UpSettings } from './process-configs.ts';
import type { MountProcessPart, ProcessPart } from './process-part.ts';
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
  readonly guestAgent: MountProcessPart;
}

export interface Up extends Service {
  status(): UpStatus;
  /** Rejects when the mount can't be kept served: then only stopping is left. Call it after `start`. */
  finished(): Promise<void>;
  /** All parts at once, also those that are just starting (`start` then rejects); for a second Ctrl-C. */
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
    isPrivateMount: parts.guestAgent.isPrivate,
    processes: processes.map((process) => process.status()),
  });
  const app = new Hono().get('/v1/status', (context) => context.json(status()));
  const control = new ControlServer(app, dependencies, {
    name: 'isobar up',
    socketPath: directory.sockets.up,
  });
  const halt = new AbortController();
  const services = [
    control,
    new Places(settings),
    parts.primarySite,
    parts.hostCollector,
    new MachineRegistration(directory, dependencies),
    parts.guestAgent,
  ];
  const group = new ServiceGroup(
    'up',
    services.map((service) => startedUnless(halt.signal, service)),
  );
  return {
    name: 'up',
    start: () => {
      makeDirectories(directory);
      return group.start();
    },
    stop: () => group.stop(),
    finished: async () => {
      await parts.guestAgent.finished?.();
      // Whoever asks wants to hear of failures alone.
      await new Promise(() => {});
    },
    status,
    stopNow: async () => {
      halt.abort(new OperatingError('stopped', 'stopped before everything had started'));
      await Promise.all(processes.map((process) => process.stopNow()));
      removeSockets(directory);
      rmSync(directory.sockets.up, { force: true });
    },
  };
}

/** `service`, not started any more once `halted` is aborted. */
function startedUnless(halted: AbortSignal, service: Service): Service {
  return {
    name: service.name,
    start: async () => {
      halted.throwIfAborted();
      await service.start();
    },
    stop: () => service.stop(),
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

/** The guest agent and its mount, by backend. */
function mountPart(settings: UpSettings, dependencies: UpDependencies): MountProcessPart {
  const { directory, mount, fuseBackend } = settings;
  const name = 'guest-agent';
  let file: RotatingFile | undefined;
  return buildGuestMount(
    {
      mountPath: mount,
      fuseBackend,
      agentArguments: ['--config', configPath(directory, name)],
    },
    {
      ...dependencies,
      takeOutput: (chunk) => {
        file ??= new RotatingFile(join(directory.logs, `${name}.log`));
        file.write(chunk);
        dependencies.takeOutput?.(name, chunk);
      },
    },
  );
}

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
    const configs = processConfigs(this.#settings);
    for (const [name, config] of [
      ['guest-agent', configs.guestAgent],
      ['host-collector', configs.hostCollector],
      ['primary-site', configs.primarySite],
    ] as const) {
      const text = `${JSON.stringify(config, undefined, 2)}\n`;
      writeFileSync(configPath(directory, name), text, { mode: 0o600 });
    }
    return Promise.resolve();
  }

  stop(): Promise<void> {
    const { directory, mount } = this.#settings;
    // What a process that was killed could not remove itself.
    removeSockets(directory);
    if (mount === directory.mount) removeMountPoint(mount);
    return Promise.resolve();
  }
}

/** Everybody may pass through to the mount, whose files have owners of their own; all else is ours alone. */
function makeDirectories({ path, config, logs }: DataDirectory): void {
  makeDirectory(path, 0o711);
  for (const own of [config, logs]) makeDirectory(own, 0o700);
}

/** All but our own, which our control server removes. */
function removeSockets({ sockets }: DataDirectory): void {
  for (const path of Object.values(sockets)) {
    if (path !== sockets.up) rmSync(path, { force: true });
  }
}

/** An earlier run that was killed may have left it. Whatever is in it stays. */
function removeMountPoint(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY' && code !== 'EBUSY') throw error;
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
