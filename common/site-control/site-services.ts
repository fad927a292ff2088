import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { AuditLog, auditLogDefault } from '../audit/audit-log.ts';
import type { SiteIdentity } from '../identity/site-identity.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import { ServiceGroup, type Service } from '../runtime/service.ts';
import { CertifiedSiteKeys } from './certified-keys.ts';
import type { BoundEndpoint } from './endpoint.ts';
import { ReplayStore } from './replay-store.ts';
import { signatureTimesDefault } from './request-gate.ts';
import { RevocationExchange, revocationExchangeDefaults } from './revocation-exchange.ts';
import { SiteControlClient, siteControlClientDefault } from './site-control-client.ts';
import { SiteControlServer, siteControlServerDefault } from './site-control-server.ts';
import { serveSite } from './site-endpoint.ts';

export interface SiteServicesOptions {
  /** Gets `control-nonces.db`, which all processes of the site share. */
  readonly siteDirectory: string;
  /** Gets `audit/`. */
  readonly dataDirectory: string;
  /** Where neighbours ask us; undefined: nowhere. */
  readonly listen: { readonly host: string; readonly port: number } | undefined;
  /** Where neighbours answer, by relation: `https://HOST:PORT`. */
  readonly controlUrls: ReadonlyMap<string, string>;
}

/** What a process of a site needs to ask its neighbours and to answer them. */
export interface SiteServices {
  /** To be started after the site's identity. */
  readonly service: Service;
  /** By relation: of the neighbours that have an address. */
  readonly clients: ReadonlyMap<string, SiteControlClient>;
  /** Undefined where nobody can ask. */
  readonly server: SiteControlServer | undefined;
}

/** Nonces of one relation; twice what its quota allows within their life. */
const noncesPerRelationMax = 10_000;

/**
 * Composes signed requests between a site and its neighbours: audit log, replay store, server, a client for each
 * neighbour with an address, and the exchange of revocation lists. `endpoints` are those of the process beside
 * `GET /v1/site` and `POST /v1/revocation-lists`, which every site answers.
 */
function buildSiteServices(
  deps: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
    readonly site: SiteIdentity;
  },
  options: SiteServicesOptions,
  endpoints: readonly BoundEndpoint[] = [],
): SiteServices {
  const { clock, random, log } = deps;
  const { identity } = deps.site;
  const { dataDirectory, siteDirectory, listen, controlUrls } = options;
  const times = signatureTimesDefault;
  const audit = new AuditLog(
    { clock, log },
    { ...auditLogDefault, directory: join(dataDirectory, 'audit') },
  );
  const common = { clock, random, log, identity, keys: new CertifiedSiteKeys(identity), audit };
  const clients = new Map(
    [...controlUrls].map(([relation, url]) => {
      const place = addressOf(url);
      return [
        relation,
        new SiteControlClient(common, { ...siteControlClientDefault, times, relation, ...place }),
      ];
    }),
  );
  const exchange = new RevocationExchange(
    { clock, log, clients, reload: () => identity.reload() },
    { ...revocationExchangeDefaults, siteDirectory },
  );
  const replays = new ReplayStore(
    { clock, log },
    {
      path: join(siteDirectory, 'control-nonces.db'),
      skewMaxS: times.skewMaxS,
      noncesPerRelationMax,
      bootId: readBootId(),
    },
  );
  const describe = (relation: string) => {
    const { name, neighbours } = identity.document;
    const neighbour = neighbours.find((each) => each.relation === relation);
    const role = neighbour?.role === 'producer' ? 'consumer' : 'producer';
    return { name, role } as const;
  };
  const server =
    listen === undefined
      ? undefined
      : new SiteControlServer(
          [serveSite(describe), exchange.endpoint, ...endpoints],
          { ...common, replays },
          { ...siteControlServerDefault, times, ...listen },
        );
  const service = new ServiceGroup('site-services', [
    audit,
    ...(server === undefined ? [] : [replayService(replays), server]),
    ...clients.values(),
    exchange,
  ]);
  return { service, clients, server };
}

/** As {@link buildSiteServices}, for a process that may be no site and may have no neighbour to ask or to answer. */
export function siteServicesOf(
  deps: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
    readonly site: SiteIdentity | undefined;
  },
  options: Omit<SiteServicesOptions, 'siteDirectory'> & {
    readonly siteDirectory: string | undefined;
  },
  endpoints: readonly BoundEndpoint[] = [],
): SiteServices | undefined {
  const { site, ...others } = deps;
  const { siteDirectory, listen, controlUrls } = options;
  if (site === undefined || siteDirectory === undefined) return undefined;
  if (listen === undefined && controlUrls.size === 0) return undefined;
  return buildSiteServices({ ...others, site }, { ...options, siteDirectory }, endpoints);
}

function replayService(replays: ReplayStore): Service {
  return {
    name: 'replay-store',
    start: () => {
      replays.open();
      return Promise.resolve();
    },
    stop: () => {
      replays.close();
      return Promise.resolve();
    },
  };
}

function addressOf(url: string): { readonly host: string; readonly port: number } {
  const { hostname, port } = new URL(url);
  // IPv6 comes in brackets, and the scheme's own port as nothing.
  return { host: hostname.replace(/^\[(.*)\]$/, '$1'), port: port === '' ? 443 : Number(port) };
}

/** Names the run of this machine; null where it can't be known. */
function readBootId(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return null;
  }
}
