import { copyFileSync } from 'node:fs';
import { join } from 'node:path';

import { EmbeddedBroker, embeddedBrokerDefaults } from '../../broker/mqtt/embedded-broker.ts';
import type { FileTlsIdentity } from '../../common/identity/file-tls-identity.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import type { Value } from '../../common/wire/value.ts';
import { buildPrimarySite, type PrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { DishonestTransport } from './dishonest-transport.ts';
import { eventually } from './eventually.ts';
import { freePort } from './external-broker.ts';
import { Federation } from './federation.ts';
import { Origin } from './origin.ts';
import { RelaySite, type RelaySiteOptions } from './relay-site.ts';
import { makeNeighbours, makeSite } from './sites.ts';

const patience = { timeoutMs: 20_000 };

/**
 * The site of a VM, an intermediary whose word can be changed, and a primary site with the defaults of one, each with an
 * identity of its own, on real sockets and files. Relations are `a` and `b`. What is in it ends with `close`.
 */
export class SignedChain {
  readonly federation: Federation;
  readonly directories: {
    readonly source: string;
    readonly relay: string;
    readonly primary: string;
  };
  readonly trust: { readonly source: FileTlsIdentity; readonly relay: FileTlsIdentity };
  readonly #ports: { readonly source: number; readonly relay: number };
  #origin: Origin | undefined;
  #sourceBroker: EmbeddedBroker | undefined;
  #relay: RelaySite | undefined;
  #intermediary: DishonestTransport | undefined;
  #primary: PrimarySite | undefined;

  private constructor(
    parts: Pick<SignedChain, 'federation' | 'directories' | 'trust'>,
    ports: { readonly source: number; readonly relay: number },
  ) {
    this.federation = parts.federation;
    this.directories = parts.directories;
    this.trust = parts.trust;
    this.#ports = ports;
  }

  /** Source and intermediary run; the primary site does not yet. */
  static async start(relay: Partial<RelaySiteOptions> = {}): Promise<SignedChain> {
    const federation = new Federation();
    const { parent } = federation;
    const directories = {
      source: await makeSite(parent, 'canary-source-site', {
        listen: ['canary-host.example:8883'],
      }),
      relay: await makeSite(parent, 'intermediary-site'),
      primary: await makeSite(parent, 'primary-site'),
    };
    await makeNeighbours('a', directories.source, directories.relay);
    await makeNeighbours('b', directories.relay, directories.primary);
    const trust = {
      source: await federation.identity(directories.source),
      relay: await federation.identity(directories.relay),
    };
    const ports = { source: await freePort(), relay: await freePort() };
    const chain = new SignedChain({ federation, directories, trust }, ports);
    await chain.startOrigin();
    await chain.startRelay(relay);
    return chain;
  }

  get origin(): Origin {
    return started(this.#origin);
  }

  get sourceBroker(): EmbeddedBroker {
    return started(this.#sourceBroker);
  }

  get relay(): RelaySite {
    return started(this.#relay);
  }

  /** What the relay sends through. */
  get intermediary(): DishonestTransport {
    return started(this.#intermediary);
  }

  get primary(): PrimarySite {
    return started(this.#primary);
  }

  close(): Promise<void> {
    return this.federation.close();
  }

  get #originPath(): string {
    return join(this.federation.parent, 'origin.db');
  }

  /** The site of the VM; signs each frame with the epoch's key. */
  async startOrigin(): Promise<void> {
    const broker = new EmbeddedBroker(
      { log: silentLog },
      { ...embeddedBrokerDefaults, port: this.#ports.source },
    );
    await broker.start();
    this.federation.onClose(() => broker.stop());
    this.#sourceBroker = broker;
    const source = new Origin(
      broker,
      this.#originPath,
      { relations: ['a'] },
      () => true,
      this.trust.source,
    );
    await source.producer.start();
    this.federation.onClose(() => source.close());
    this.#origin = source;
  }

  /** A copy of the source's log as it is now, to be put back by {@link restoreOrigin}. */
  copyOrigin(): void {
    this.origin.database.exec(`VACUUM INTO '${this.#originPath}.copy'`);
  }

  /** Whatever `change` makes of the copy takes the place of the log: the source is started on it. */
  async restoreOrigin(change: (copy: ReturnType<typeof openDatabase>) => void): Promise<void> {
    const copy = openDatabase(`${this.#originPath}.copy`);
    change(copy);
    copy.close();
    await this.origin.close();
    await this.sourceBroker.stop();
    copyFileSync(`${this.#originPath}.copy`, this.#originPath);
    await this.startOrigin();
  }

  async startRelay(options: Partial<RelaySiteOptions> = {}): Promise<void> {
    const site = await RelaySite.start({
      directory: join(this.federation.parent, 'relay-data'),
      port: this.#ports.relay,
      upstream: [{ relation: 'a', port: this.#ports.source }],
      downstream: [{ relation: 'b' }],
      trust: this.trust.relay,
      wrapDownstream: (broker) => {
        this.#intermediary = new DishonestTransport(broker);
        return this.#intermediary;
      },
      ...options,
    });
    this.federation.onClose(() => site[Symbol.asyncDispose]());
    this.#relay = site;
  }

  /** With the defaults of a site: nothing is taken without a signature by a stated key. */
  async startPrimary(): Promise<void> {
    const { parent } = this.federation;
    const primary = buildPrimarySite(
      primarySiteConfigSchema.parse({
        dataDirectory: join(parent, 'primary-data'),
        controlSocket: join(parent, 'primary.sock'),
        siteDirectory: this.directories.primary,
        mqttUrl: `mqtt://127.0.0.1:${this.#ports.relay}`,
        externalBroker: true,
        relation: 'b',
        jsonTopics: false,
      }),
    );
    this.#primary = primary;
    await primary.service.start();
    this.federation.onClose(() => primary.service.stop());
    await eventually(() => primary.consumer.isLive, patience);
  }

  values(): readonly Value[] {
    const { readings } = this.primary.store.reader.query({ pattern: 'kpi/users/*' }, 100_000);
    return readings.map(({ value }) => value);
  }

  findings(): readonly string[] {
    const records = this.primary.store.integrity();
    return [...new Set(records.map(({ finding }) => finding))].toSorted();
  }

  async found(finding: string): Promise<void> {
    await eventually(() => this.findings().includes(finding), patience);
  }
}

function started<Part>(part: Part | undefined): Part {
  if (part === undefined) throw new Error('this part of the chain was not started');
  return part;
}
