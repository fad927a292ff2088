import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { createRevocationList } from '../../../common/identity/certificate-maker.ts';
import {
  defaultLifetimes,
  SiteAuthority,
  type Lifetimes,
} from '../../../common/identity/site-authority.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import { buildSiteIdentity } from '../../../common/identity/site-identity.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import {
  CertifiedSiteKeys,
  type SigningIdentity,
} from '../../../common/site-control/certified-keys.ts';
import { RequestRefused } from '../../../common/site-control/control-code.ts';
import { signatureTimesDefault } from '../../../common/site-control/request-gate.ts';
import {
  RevocationExchange,
  revocationExchangeDefaults,
} from '../../../common/site-control/revocation-exchange.ts';
import {
  SiteControlClient,
  siteControlClientDefault,
} from '../../../common/site-control/site-control-client.ts';
import { siteEndpoint } from '../../../common/site-control/site-endpoint.ts';
import { siteServicesOf, type SiteServices } from '../../../common/site-control/site-services.ts';
import { eventually } from '../../support/eventually.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryAudit, MemoryLog, SkewedClock } from '../../support/site-pair.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeoutMs = 20_000;
const hourS = 3_600;
const random = new SystemRandom();

function lists(path: string): string {
  return readFileSync(path, 'utf8');
}

function clockAt(hoursAgo: number): SkewedClock {
  const clock = new SkewedClock();
  clock.skewS = -hoursAgo * hourS;
  return clock;
}

/** A running process of a site with its control services. */
class RunningSite implements AsyncDisposable {
  readonly log = new MemoryLog();
  readonly services: SiteServices;
  readonly site: ReturnType<typeof buildSiteIdentity>;

  private constructor(directory: string, lifetimes: Lifetimes, urls: ReadonlyMap<string, string>) {
    const deps = { clock: new SkewedClock(), random, log: this.log };
    this.site = buildSiteIdentity(deps, directory, lifetimes);
    const services = siteServicesOf(
      { ...deps, site: this.site },
      {
        siteDirectory: directory,
        dataDirectory: join(directory, 'data'),
        listen: urls.size > 0 ? undefined : { host: '127.0.0.1', port: 0 },
        controlUrls: urls,
      },
    );
    if (services === undefined) throw new Error('a site has services');
    this.services = services;
  }

  static async start(
    directory: string,
    lifetimes: Lifetimes,
    urls: ReadonlyMap<string, string> = new Map(),
  ): Promise<RunningSite> {
    const running = new RunningSite(directory, lifetimes, urls);
    await running.site.service.start();
    await running.services.service.start();
    return running;
  }

  get url(): string {
    return this.services.server?.url ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.services.service.stop();
    await this.site.service.stop();
  }
}

/** Neighbours a and b whose signing certificates are ten days old, and whose lists were exchanged 30 hours ago. */
async function afterOutage(
  parent: string,
  lifetimes: Lifetimes,
): Promise<{ a: string; b: string }> {
  const begin = clockAt(240);
  const a = await makeSite(parent, 'a', { clock: begin, lifetimes, listen: ['127.0.0.1:1'] });
  const b = await makeSite(parent, 'b', { clock: begin, lifetimes });
  const cut = clockAt(30);
  for (const site of [a, b]) {
    await new SiteAuthority({ clock: cut }, site, lifetimes).renewWhatIsDue();
  }
  await makeNeighbours('a-b', a, b, cut);
  return { a, b };
}

/** A client as `site` has one, that keeps to the signing certificate and key given. */
async function clientOf(
  { site }: RunningSite,
  url: string,
  signing: ReturnType<SigningIdentity['signing']>,
): Promise<SiteControlClient> {
  const identity: SigningIdentity = {
    material: () => site.identity.material(),
    relationOf: (der, use) => site.identity.relationOf(der, use),
    onChange: () => () => {},
    signing: () => signing,
  };
  const client = new SiteControlClient(
    {
      clock: new SystemClock(),
      random,
      log: silentLog,
      identity,
      keys: new CertifiedSiteKeys(identity),
      audit: new MemoryAudit(),
    },
    {
      ...siteControlClientDefault,
      times: signatureTimesDefault,
      relation: 'a-b',
      host: '127.0.0.1',
      port: Number(new URL(url).port),
    },
  );
  await client.start();
  return client;
}

/** What a process of site a does with lists that neighbours bring; `bring` is one such request. */
function exchangeOf(siteDirectory: string) {
  const clock = new ManualClock(Date.now() * 1_000);
  let reloadCount = 0;
  const { endpoint } = new RevocationExchange(
    {
      clock,
      log: silentLog,
      clients: new Map(),
      reload: () => {
        reloadCount += 1;
        return Promise.resolve();
      },
    },
    { ...revocationExchangeDefaults, siteDirectory },
  );
  const context = { idempotencyKey: 'x', signal: new AbortController().signal };
  return {
    clock,
    reloadCount: () => reloadCount,
    bring: async (relation: string, text: string): Promise<string> => {
      const prepared = endpoint.prepare(Buffer.from(JSON.stringify({ lists: text })));
      try {
        return (await prepared.run(relation, context)).outcome;
      } catch (error) {
        if (error instanceof RequestRefused) return error.code;
        throw error;
      }
    },
  };
}

/** A list of the site in `directory`, newer than its own. */
function newerList(directory: string, number: number): Promise<string> {
  const files = siteFiles(directory);
  const cert = readFileSync(files.certificate('authority'), 'utf8');
  const key = readFileSync(files.key('authority'), 'utf8');
  const thisUpdateMs = Date.now();
  const times = { thisUpdateMs, nextUpdateMs: thisUpdateMs + 86_400_000 };
  return createRevocationList({ cert, key }, { number, ...times, revocations: [] });
}

describe('RevocationExchange', () => {
  test('lists that are held already change nothing, and nobody reads the files again for them', async () => {
    using parent = temporaryDirectory();
    const [a, b] = [await makeSite(parent.path, 'a'), await makeSite(parent.path, 'b')];
    await makeNeighbours('a-b', a, b);
    const { bring, clock, reloadCount } = exchangeOf(a);
    expect(await bring('a-b', lists(siteFiles(b).revocationList))).toBe('accepted');
    await clock.advance(1_000);
    const before = reloadCount();
    const newer = await newerList(b, 2_000_000_000);
    expect(await bring('a-b', newer)).toBe('accepted');
    expect(await bring('a-b', newer)).toBe('accepted');
    await clock.advance(1_000);
    expect(reloadCount()).toBe(before + 1);
  });

  test('a neighbour brings lists once in ten seconds, three at once, and others are not affected', async () => {
    using parent = temporaryDirectory();
    const [a, b, c] = [
      await makeSite(parent.path, 'a'),
      await makeSite(parent.path, 'b'),
      await makeSite(parent.path, 'c'),
    ];
    await makeNeighbours('a-b', a, b);
    await makeNeighbours('a-c', a, c);
    const { bring, clock } = exchangeOf(a);
    const outcomes: string[] = [];
    for (let count = 0; count < 4; count += 1) outcomes.push(await bring('a-b', 'nonsense'));
    expect(outcomes).toEqual(['refused', 'refused', 'refused', 'rate-limited']);
    expect(await bring('a-c', lists(siteFiles(c).revocationList))).toBe('accepted');
    await clock.advance(10_000);
    expect(await bring('a-b', lists(siteFiles(b).revocationList))).toBe('accepted');
    expect(await bring('a-b', lists(siteFiles(b).revocationList))).toBe('rate-limited');
  });

  const yearLong = { ...defaultLifetimes, signingMs: 365 * 86_400_000 };
  test('a leaked signing key is revoked alone: unknown-key at the neighbour, and the site asks on without interruption', async () => {
    using parent = temporaryDirectory();
    const a = await makeSite(parent.path, 'a', { listen: ['127.0.0.1:1'] });
    const b = await makeSite(parent.path, 'b');
    await makeNeighbours('a-b', a, b);
    await using atA = await RunningSite.start(a, defaultLifetimes);
    await using atB = await RunningSite.start(b, defaultLifetimes, new Map([['a-b', atA.url]]));
    const leaked = atB.site.identity.signing();
    const thief = await clientOf(atB, atA.url, leaked);
    expect(await thief.call(siteEndpoint, {})).toMatchObject({ name: 'a' });
    const leaf = readFileSync(siteFiles(b).certificate('leaf'), 'utf8');

    // As isobar site revoke --signing does, in a process of its own.
    await new SiteAuthority({ clock: new SystemClock() }, b).revoke('signing');
    const client = atB.services.clients.get('a-b');
    const refusal = await eventually(
      async () => {
        expect(await client?.call(siteEndpoint, {})).toMatchObject({ name: 'a' });
        return thief.call(siteEndpoint, {}).then(
          () => undefined,
          (error: unknown) => error,
        );
      },
      { timeoutMs },
    );
    expect(refusal).toMatchObject({ peerCode: 'unknown-key' });
    expect(await client?.call(siteEndpoint, {})).toMatchObject({ name: 'a' });
    const warned = atB.log.events.map(({ event }) => event);
    expect(warned.filter((event) => event.startsWith('revocation'))).toEqual([]);
    expect(readFileSync(siteFiles(b).certificate('leaf'), 'utf8')).toBe(leaf);
    await thief.stop();
  });

  test.each([
    ['of a week', defaultLifetimes],
    ['of a year', yearLong],
  ])(
    'after an outage longer than lists are good for, two sites recover by themselves: signing certificates %s',
    async (_of, lifetimes) => {
      using parent = temporaryDirectory();
      const { a, b } = await afterOutage(parent.path, lifetimes);
      await using atA = await RunningSite.start(a, lifetimes);
      await using atB = await RunningSite.start(b, lifetimes, new Map([['a-b', atA.url]]));
      await eventually(
        () =>
          lists(siteFiles(a).neighbourRevocationList('a-b')) ===
            lists(siteFiles(b).revocationList) &&
          lists(siteFiles(b).neighbourRevocationList('a-b')) === lists(siteFiles(a).revocationList),
        { timeoutMs },
      );
      const client = atB.services.clients.get('a-b');
      const answer = await eventually(() => client?.call(siteEndpoint, {}), { timeoutMs });
      expect(answer).toMatchObject({ name: 'a', role: 'producer' });
    },
  );
});
