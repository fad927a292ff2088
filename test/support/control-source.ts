import { z } from 'zod';

import { OperatingError } from '../../common/runtime/operating-error.ts';
import { serve, type Endpoint } from '../../common/site-control/endpoint.ts';
import type { SiteControlServerOptions } from '../../common/site-control/site-control-server.ts';
import { serveSite } from '../../common/site-control/site-endpoint.ts';
import {
  serveSubscriptions,
  type SubscriptionRequest,
} from '../../common/site-control/subscription-endpoint.ts';
import { TestSite } from './control-site.ts';
import { eventually } from './eventually.ts';
import { ControlSite, RawConnection, type SkewedClock } from './site-pair.ts';
import { temporaryDirectory } from './temporary-directory.ts';

/** What must not reach a neighbour. */
export const canary = 'CANARY-host-17.internal';
const timeoutMs = 10_000;

/** `source` has the neighbours `primary` and `other`; nobody knows the stranger. */
export interface ControlSites {
  readonly source: TestSite;
  readonly primary: TestSite;
  readonly other: TestSite;
  readonly stranger: TestSite;
}

export async function makeSites(): Promise<ControlSites> {
  const [source, primary, other, stranger] = await Promise.all([
    TestSite.make('source'),
    TestSite.make('primary', 'p256'),
    TestSite.make('other'),
    TestSite.make('stranger'),
  ]);
  return { source, primary, other, stranger };
}

/** Refuses, fails and takes its time as its request says. */
export const moodEndpoint = {
  method: 'POST',
  path: '/v1/mood',
  requestSchema: z.strictObject({
    mood: z.enum(['good', 'bug', 'busy', 'talkative', 'slow']),
    filler: z.string().optional(),
  }),
  answerSchema: z.object({ outcome: z.enum(['good']) }),
  isIdempotent: true,
} as const satisfies Endpoint;
export const onceEndpoint = { ...moodEndpoint, path: '/v1/once', isIdempotent: false } as const;

/** A site `source` with neighbours `primary` (relation to-primary) and `other` (relation to-other). */
/** A running site `source`. */
export interface RunningSource extends AsyncDisposable {
  readonly port: number;
  /** What its subscription keeper was asked. */
  readonly subscribed: readonly {
    readonly relation: string;
    readonly request: SubscriptionRequest;
  }[];
  /** Idempotency keys of the requests that reached the moody handler. */
  readonly keys: readonly string[];
  readonly site: ControlSite;
  /** On the same port, with the same files. */
  restart(): Promise<void>;
}

export async function startSource(
  { source, primary, other }: ControlSites,
  options: Partial<SiteControlServerOptions> & { readonly clock?: SkewedClock } = {},
): Promise<RunningSource> {
  const directory = temporaryDirectory();
  const subscribed: { relation: string; request: SubscriptionRequest }[] = [];
  const keys: string[] = [];
  const handleMood = async (
    _relation: string,
    { mood }: z.output<typeof moodEndpoint.requestSchema>,
    { idempotencyKey, signal }: { idempotencyKey: string; signal: AbortSignal },
  ): Promise<{ readonly outcome: 'good' }> => {
    keys.push(idempotencyKey);
    const secret = { outcome: 'good' as const, host: canary };
    if (mood === 'bug') throw new Error(`no route to ${canary}`);
    if (mood === 'busy') {
      throw new OperatingError('store-full', `disk of ${canary} is full`, { retryable: true });
    }
    if (mood === 'slow') {
      await new Promise((resolve) => {
        signal.addEventListener('abort', resolve);
      });
    }
    return secret;
  };
  const endpoints = [
    serveSite((relation) => ({
      name: 'source',
      role: relation === 'to-primary' ? 'producer' : 'consumer',
    })),
    ...serveSubscriptions({
      subscribe: (relation, request) => {
        subscribed.push({ relation, request });
        if (request.streams === 'all') return Promise.resolve({ outcome: 'subscribed' });
        const isOurs = request.streams.every(({ vm }) => vm === 'vm1');
        return Promise.resolve({ outcome: isOurs ? 'already-relayed' : 'not-authorized' });
      },
      end: () => {},
    }),
    serve(moodEndpoint, handleMood),
    serve(onceEndpoint, handleMood),
  ];
  const { clock, ...rest } = options;
  const start = (port: number): Promise<ControlSite> =>
    ControlSite.start(
      endpoints,
      source,
      { 'to-primary': primary, 'to-other': other },
      { directory: directory.path, port, ...(clock === undefined ? {} : { clock }) },
      rest,
    );
  let site = await start(0);
  const { port } = site.server;
  return {
    port,
    subscribed,
    keys,
    get site(): ControlSite {
      return site;
    },
    restart: async (): Promise<void> => {
      await site[Symbol.asyncDispose]();
      site = await start(port);
    },
    [Symbol.asyncDispose]: async (): Promise<void> => {
      await site[Symbol.asyncDispose]();
      directory[Symbol.dispose]();
    },
  };
}

/** Status and body of an answer. */
export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** Sends bytes as `site` and returns the answer. */
export async function ask(
  site: TestSite,
  trusted: TestSite,
  port: number,
  text: string,
): Promise<Answer | 'closed'> {
  using connection = await RawConnection.open(site, trusted, port);
  connection.write(text);
  return await eventually(() => connection.answer ?? (connection.isClosed ? 'closed' : undefined), {
    timeoutMs,
  });
}

/** What a refusal looks like on the wire. */
export const refusal = (status: number, code: string): Answer => ({
  status,
  body: JSON.stringify({ error: { code } }),
});
