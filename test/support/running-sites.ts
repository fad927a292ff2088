import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { initSite } from '../../cli/demo/introduce-sites.ts';
import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient } from '../../common/control/control-client.ts';
import {
  queryAnswerSchema,
  readerStatusSchema,
  type Reading,
} from '../../common/control/reader-answer.ts';
import {
  relayPaths,
  relayStatusSchema,
  type RelayStatus,
} from '../../common/control/relay-answer.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { freePort } from './external-broker.ts';
import { IsobarProcess } from './isobar-program.ts';
import { makeNeighbours } from './sites.ts';

const commands = { collector: ['collector'], relay: ['relay'], reader: ['site'] } as const;

interface Place {
  readonly kind: keyof typeof commands;
  readonly port: number;
  readonly controlPort: number;
  process?: IsobarProcess;
}

/** Sites of their own, as processes of the real command line, in any shape. */
export class RunningSites implements AsyncDisposable {
  readonly #directory: string;
  readonly #places = new Map<string, Place>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes a site; `run` starts its process. */
  async add(name: string, kind: Place['kind']): Promise<void> {
    const port = await freePort();
    await initSite(new SystemClock(), this.siteDirectory(name), { name, port });
    mkdirSync(join(this.#directory, name));
    this.#places.set(name, { kind, port, controlPort: await freePort() });
  }

  /** Lets two sites trust each other; the relation is `producer-consumer`. */
  introduce(producer: string, consumer: string): Promise<void> {
    const relation = `${producer}-${consumer}`;
    return makeNeighbours(relation, this.siteDirectory(producer), this.siteDirectory(consumer));
  }

  /** Where a site's own broker listens, for its configuration. */
  listen(name: string): { readonly port: number } {
    return { port: this.#place(name).port };
  }

  url(name: string): string {
    return `mqtts://127.0.0.1:${this.#place(name).port}`;
  }

  /** Where it takes signed requests, for its configuration, and for those of its neighbours. */
  control(name: string): { readonly listen: { readonly port: number } } {
    return { listen: { port: this.#place(name).controlPort } };
  }

  controlUrl(name: string): string {
    return `https://127.0.0.1:${this.#place(name).controlPort}`;
  }

  siteDirectory(name: string): string {
    return join(this.#directory, `${name}-site`);
  }

  configPath(name: string): string {
    return join(this.#directory, `${name}.json`);
  }

  dataDirectory(name: string): string {
    return join(this.#directory, name);
  }

  /** (Re)starts a site's process; `config` is what its configuration has beside what every site needs. */
  async run(name: string, config: object): Promise<void> {
    await this.kill(name);
    const own = {
      dataDirectory: this.dataDirectory(name),
      siteDirectory: this.siteDirectory(name),
      controlSocket: this.#socket(name),
    };
    writeFileSync(this.configPath(name), JSON.stringify({ ...own, ...config }));
    const place = this.#place(name);
    const arguments_ = [...commands[place.kind], 'run', '--config', this.configPath(name)];
    place.process = new IsobarProcess(...arguments_);
  }

  /** kill -9 */
  async kill(name: string): Promise<void> {
    const place = this.#place(name);
    await place.process?.end('SIGKILL');
    delete place.process;
  }

  log(name: string): string {
    return this.#place(name).process?.log ?? '';
  }

  addVm(name: string, descriptor: object): Promise<unknown> {
    return this.#client(name).call('POST', collectorPaths.vms, descriptor, vmAnswerSchema);
  }

  async removeVm(name: string, vm: string): Promise<void> {
    await this.#client(name).call('DELETE', collectorPaths.vm(vm), undefined, z.unknown());
  }

  relayStatus(name: string): Promise<RelayStatus> {
    return this.#client(name).get(relayPaths.status, relayStatusSchema);
  }

  readerStatus(name: string): Promise<z.output<typeof readerStatusSchema>> {
    return this.#client(name).get('/v1/status', readerStatusSchema);
  }

  async readings(name: string): Promise<readonly Reading[]> {
    const path = '/v1/query?limit=100000&sinceUs=0&pattern=**';
    return (await this.#client(name).get(path, queryAnswerSchema)).readings;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#places.keys()].toReversed()) await this.kill(name);
  }

  #place(name: string): Place {
    const place = this.#places.get(name);
    if (place === undefined) throw new Error(`no site ${name}`);
    return place;
  }

  #socket(name: string): string {
    return join(this.#directory, `${name}.sock`);
  }

  #client(name: string): ControlClient {
    return new ControlClient({ socketPath: this.#socket(name), peer: name, startCommand: 'none' });
  }
}
