import assert from 'node:assert';

import type { FileTlsIdentity } from '../../common/identity/file-tls-identity.ts';
import { siteFiles } from '../../common/identity/site-files.ts';
import { buildSiteIdentity, type SiteIdentity } from '../../common/identity/site-identity.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Random } from '../../common/runtime/random.ts';
import { ServiceGroup, type Service } from '../../common/runtime/service.ts';
import { EmbeddedBroker, embeddedBrokerDefaults } from './embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from './mqtt-client.ts';
import type { MqttTransport } from './mqtt-transport.ts';
import { neighbourListenerDefaults } from './neighbour-listener.ts';
import type { NeighbourRole } from './neighbour-rights.ts';
import { relationCheck } from './relation-check.ts';
import { problemOfDial, problemOfListen } from './site-transport-config.ts';

export interface SiteTransportDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Of the process, for warnings about its relations. */
  readonly configPath?: string | undefined;
}

export interface SiteTransportOptions {
  /** Made by `isobar site init`. With it neighbours are met over mutual TLS only; without, on loopback only. */
  readonly siteDirectory: string | undefined;
  /** Our own broker, for those that dial us. */
  readonly listen: { readonly host: string; readonly port: number } | undefined;
  /** With a site directory: a port on 127.0.0.1 for this site's own processes, without TLS. */
  readonly localPort: number | undefined;
  /** What the neighbour of each relation is. */
  readonly roles: ReadonlyMap<string, NeighbourRole>;
  readonly keepaliveSeconds: number;
}

/** Whose broker is dialled: the neighbour's own, or one that belongs to neither site. */
export type BrokerKind = 'neighbour' | 'external';

/**
 * How one process of a site meets its neighbours: one broker of our own at most, and a client for each neighbour that we
 * dial. With a site directory that is mutual TLS, unless the broker is named as external, so that no relation is left
 * open by mistake.
 */
export class SiteTransports {
  readonly broker: EmbeddedBroker | undefined;
  readonly #deps: SiteTransportDeps;
  readonly #options: SiteTransportOptions;
  readonly #site: SiteIdentity | undefined;
  /** Of the neighbours that we dial. */
  readonly #clients = new Map<string, MqttClient>();

  constructor(deps: SiteTransportDeps, options: SiteTransportOptions) {
    this.#deps = deps;
    this.#options = options;
    const { siteDirectory } = options;
    this.#site = siteDirectory === undefined ? undefined : buildSiteIdentity(deps, siteDirectory);
    this.broker = this.#buildBroker();
  }

  /** Undefined without a site directory. */
  get site(): SiteIdentity | undefined {
    return this.#site;
  }

  /** To be started before the transports: keeps certificates valid, watches whom we trust, warns of whom we don't. */
  get identity(): Service {
    const { siteDirectory, roles } = this.#options;
    if (this.#site === undefined || siteDirectory === undefined) {
      return new ServiceGroup('no-site-identity', []);
    }
    const { identity, service } = this.#site;
    const { log, configPath } = this.#deps;
    const siteDocument = siteFiles(siteDirectory).document;
    const check = relationCheck({ identity, log }, { roles, configPath, siteDocument });
    return new ServiceGroup('site', [service, check]);
  }

  /** Whom this site trusts, and what it signs with; undefined without a site directory. */
  get trust(): FileTlsIdentity | undefined {
    return this.#site?.identity;
  }

  /**
   * A client of the neighbour's broker, or of an external one; our own broker when `url` is undefined: it dials us.
   * Configurations refuse what is asserted here (site-transport-config.ts).
   */
  to(relation: string, url: string | undefined, broker: BrokerKind = 'neighbour'): MqttTransport {
    if (url === undefined) {
      assert(this.broker !== undefined, `relation ${relation}: neither an address nor a broker`);
      return this.broker;
    }
    const { keepaliveSeconds, siteDirectory } = this.#options;
    const isExternal = broker === 'external';
    const problem = problemOfDial({ url, siteDirectory, isExternal });
    assert(problem === undefined, `relation ${relation}: ${problem}`);
    const client = new MqttClient(this.#deps, {
      ...mqttClientDefaults,
      url,
      keepaliveSeconds,
      ...(this.#site === undefined || isExternal
        ? {}
        : {
            neighbour: {
              identity: this.#site.identity,
              relation,
              packetBytesMax: neighbourListenerDefaults.packetBytesMax,
            },
          }),
    });
    this.#clients.set(relation, client);
    return client;
  }

  /** Why the neighbour can't be reached; null while it is, and where it dials us. */
  failureOf(relation: string): string | null {
    return this.#clients.get(relation)?.failure ?? null;
  }

  #buildBroker(): EmbeddedBroker | undefined {
    const { listen, localPort, roles } = this.#options;
    if (this.#site === undefined) {
      if (listen === undefined) return undefined;
      const problem = problemOfListen(listen, undefined);
      assert(problem === undefined, `${listen.host} ${problem}`);
      return new EmbeddedBroker(this.#deps, { ...embeddedBrokerDefaults, ...listen });
    }
    if (listen === undefined && localPort === undefined) return undefined;
    const neighbours =
      listen === undefined
        ? undefined
        : {
            ...neighbourListenerDefaults,
            ...listen,
            identity: this.#site.identity,
            roleOf: (relation: string) => roles.get(relation),
          };
    return new EmbeddedBroker(this.#deps, {
      ...embeddedBrokerDefaults,
      listensLocally: localPort !== undefined,
      port: localPort ?? 0,
      ...(neighbours === undefined ? {} : { neighbours }),
    });
  }
}
