import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient } from '../../common/control/control-client.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { makeDirectory } from '../../common/runtime/make-directory.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import { ChildProcessService } from '../up/child-process-service.ts';
import { findFreePort } from '../up/free-port.ts';
import { buildGuestMount } from '../up/guest-mount.ts';
import type { MountProcessPart } from '../up/process-part.ts';
import { RotatingFile } from '../up/rotating-file.ts';
import { initSite, introduceSites } from './introduce-sites.ts';
import { makeReaderKey } from './reader-key.ts';

export const demoVms = ['vm1', 'vm2'] as const;
export const demoSites = ['source', 'intermediary', 'primary'] as const;
export type DemoSite = (typeof demoSites)[number];

export interface DemoDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** The process of each site that `--kill` ends. */
const entries: Readonly<Record<DemoSite, string>> = {
  source: 'host-collector/main.ts',
  intermediary: 'broker/relay/main.ts',
  primary: 'primary-site/main.ts',
};

/**
 * A federation on one machine: a source site with two VMs (mounts of their own in this machine), an intermediary and a
 * primary site. Each site is a process with its own authority, broker port and data directory, and knows only its
 * neighbours.
 *
 *   vm1, vm2 --> source (host collector) --mutual TLS--> intermediary (relay) --mutual TLS--> primary (reader)
 *                signs, seals for primary                 countersigns the keys               verifies, opens
 */
export class DemoFederation implements Service {
  readonly name = 'demo';
  readonly #directory: string;
  readonly #deps: DemoDependencies;
  readonly #mounts: ReadonlyMap<string, MountProcessPart>;
  readonly #sites: ReadonlyMap<DemoSite, ChildProcessService>;
  readonly #services: ServiceGroup;
  /** What the VMs' data is sealed for; the private half is at the primary site alone. */
  #readerKeyPem = '';

  constructor(directory: string, deps: DemoDependencies) {
    this.#directory = directory;
    this.#deps = deps;
    this.#mounts = new Map(demoVms.map((vm) => [vm, this.#mount(vm)]));
    this.#sites = new Map(demoSites.map((site) => [site, this.#process(site)]));
    this.#services = new ServiceGroup('demo', [
      service('configurations', () => this.#configure()),
      ...[...this.#sites.values()].toReversed(),
      service('VMs', () => this.#registerVms()),
      ...this.#mounts.values(),
    ]);
  }

  start(): Promise<void> {
    return this.#services.start();
  }

  stop(): Promise<void> {
    return this.#services.stop();
  }

  mountPath(vm: string): string {
    return join(this.#directory, 'source', vm, 'mount');
  }

  /** The control socket of a site's process. */
  socket(site: DemoSite): string {
    return join(this.#directory, site, 'control.sock');
  }

  /** kill -9, and nobody starts it again before {@link restart}. */
  async kill(site: DemoSite): Promise<void> {
    const process = this.#sites.get(site);
    process?.kill();
    await process?.gone();
  }

  async restart(site: DemoSite): Promise<void> {
    await this.#sites.get(site)?.start();
  }

  /** At once, without draining; leaves no mount behind. */
  async stopNow(): Promise<void> {
    for (const process of this.#sites.values()) process.kill();
    await Promise.all([...this.#mounts.values()].map((mount) => mount.stopNow()));
  }

  /** Directories, identities that trust their neighbours, and what each process reads. */
  async #configure(): Promise<void> {
    const { clock } = this.#deps;
    const ports = {
      source: await findFreePort(0),
      intermediary: await findFreePort(0),
    };
    for (const site of demoSites) {
      makeDirectory(join(this.#directory, site), 0o711);
      const port = site === 'primary' ? undefined : ports[site];
      await initSite(clock, this.#siteDirectory(site), { name: site, port });
    }
    await this.#introduce('source', 'intermediary');
    await this.#introduce('intermediary', 'primary');
    this.#writeConfig('source', {
      mqttPort: 0,
      listen: { port: ports.source },
      relations: ['source-intermediary'],
      statusIntervalMs: 1_000,
    });
    this.#writeConfig('intermediary', {
      listen: { port: ports.intermediary },
      relations: [
        {
          relation: 'source-intermediary',
          direction: 'upstream',
          dial: `mqtts://127.0.0.1:${ports.source}`,
        },
        { relation: 'intermediary-primary', direction: 'downstream' },
      ],
    });
    const keysDirectory = join(this.#directory, 'primary', 'keys');
    this.#readerKeyPem = makeReaderKey(keysDirectory);
    this.#writeConfig('primary', {
      keysDirectory,
      mqttUrl: `mqtts://127.0.0.1:${ports.intermediary}`,
      relation: 'intermediary-primary',
      jsonTopics: false,
    });
    for (const vm of demoVms) this.#writeAgentConfig(vm);
  }

  #introduce(producer: DemoSite, consumer: DemoSite): Promise<void> {
    return introduceSites(this.#deps.clock, `${producer}-${consumer}`, {
      producer: this.#siteDirectory(producer),
      consumer: this.#siteDirectory(consumer),
    });
  }

  #writeConfig(site: DemoSite, config: object): void {
    const common = {
      dataDirectory: join(this.#directory, site, 'data'),
      controlSocket: this.socket(site),
      siteDirectory: this.#siteDirectory(site),
    };
    writeJson(this.#configPath(site), { ...common, ...config });
  }

  #writeAgentConfig(vm: string): void {
    const directory = join(this.#directory, 'source', vm);
    makeDirectory(this.mountPath(vm), 0o711);
    writeJson(join(directory, 'guest-agent.json'), {
      mountPath: this.mountPath(vm),
      dataDirectory: join(directory, 'data'),
      controlSocket: join(directory, 'control.sock'),
      channel: { address: `unix:${this.#channel(vm)}` },
    });
  }

  async #registerVms(): Promise<void> {
    const collector = new ControlClient({
      socketPath: this.socket('source'),
      peer: 'the host collector of the source site',
      startCommand: 'npm run demo',
    });
    for (const vm of demoVms) {
      const descriptor = {
        apiVersion: 'isobar/v1',
        kind: 'VirtualMachine',
        id: vm,
        guest: { channel: `unix:${this.#channel(vm)}` },
        monitoring: { specifiers: [{ id: 'kpi', dataPoints: 'kpi/**' }] },
        primarySitePublicKey: this.#readerKeyPem,
      };
      await collector.call('POST', collectorPaths.vms, descriptor, vmAnswerSchema);
    }
  }

  #mount(vm: string): MountProcessPart {
    const directory = join(this.#directory, 'source', vm);
    return buildGuestMount(
      {
        mountPath: this.mountPath(vm),
        fuseBackend: 'dev-fuse',
        agentArguments: ['--config', join(directory, 'guest-agent.json')],
      },
      { ...this.#deps, takeOutput: this.#output(join('source', vm)) },
    );
  }

  #process(site: DemoSite): ChildProcessService {
    return new ChildProcessService(
      {
        name: site,
        entry: compiledEntry(entries[site]),
        arguments: ['--config', this.#configPath(site)],
      },
      { ...this.#deps, takeOutput: this.#output(site) },
    );
  }

  /** To `process.log` in a part's directory. */
  #output(part: string): (chunk: Buffer) => void {
    let file: RotatingFile | undefined;
    return (chunk) => {
      file ??= new RotatingFile(join(this.#directory, part, 'process.log'));
      file.write(chunk);
    };
  }

  #siteDirectory(site: DemoSite): string {
    return join(this.#directory, site, 'site');
  }

  #configPath(site: DemoSite): string {
    return join(this.#directory, site, 'config.json');
  }

  #channel(vm: string): string {
    return join(this.#directory, 'source', vm, 'channel.sock');
  }
}

function service(name: string, start: () => Promise<void>): Service {
  return { name, start, stop: () => Promise.resolve() };
}

function writeJson(path: string, document: object): void {
  writeFileSync(path, `${JSON.stringify(document, undefined, 2)}\n`, { mode: 0o600 });
}
