import assert from 'node:assert';

import { ask, makeSites, startSource } from '../../support/control-source.ts';
import { eventually } from '../../support/eventually.ts';
import { RawConnection, rawRequest } from '../../support/site-pair.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';
import { joinParts, partsIn } from '../parts.ts';

const timeoutMs = 20_000;
/** Nobody runs into a quota or an idle connection here. */
const options = {
  quota: { burst: 1_000_000, perSecond: 100_000 },
  headTimeoutMs: 500,
  requestTimeoutMs: 1_000,
  timeoutCheckMs: 50,
};
const subscription = '{"kind":"standing","streams":"all","hopCount":0}';
/** Method, path, body. */
const requests = [
  ['GET', '/v1/site', ''],
  ['POST', '/v1/subscriptions', subscription],
  [
    'POST',
    '/v1/subscriptions',
    '{"kind":"standing","streams":[{"vm":"vm1","kind":"data"}],"hopCount":3}',
  ],
  ['POST', '/v1/mood', '{"mood":"good"}'],
] as const;

/** Requests of a neighbour over mutual TLS: bytes as they are, and requests of any content with a right signature. */
export const siteControl: FuzzTarget = {
  name: 'site-control',
  dictionary: [
    'content-length: 5\r\n',
    'transfer-encoding: chunked\r\n',
    'signature-input: ',
    '\r\n\r\n',
  ],
  inputBytesMax: 65_536,
  start: startSite,
};

async function startSite(): Promise<RunningFuzzTarget> {
  const sites = await makeSites();
  const source = await startSource(sites, options);
  const { port } = source;
  const raw = (): Buffer => Buffer.from(rawRequest(sites.primary, 'to-primary', port));
  const signed = requests.map((parts) => joinParts(parts.map((part) => Buffer.from(part))));
  const send = async (text: string): Promise<void> => {
    using connection = await RawConnection.open(sites.primary, sites.source, port);
    connection.socket.end(Buffer.from(text, 'latin1'));
    await eventually(() => connection.isClosed, { timeoutMs, pollMs: 2 });
    for (const [, status = ''] of connection.received.matchAll(/^HTTP\/1\.1 (\d{3})/gm)) {
      assert.notEqual(status, '500', `answered by ${status}`);
    }
    assert(!/Error:|node:|\/common\//.test(connection.received), 'no inner workings go out');
    // What has grown with every request so far is kept for tests alone.
    source.site.audit.events.length = 0;
    source.site.log.events.length = 0;
  };
  return {
    samples: [raw(), Buffer.concat([raw(), raw()]), ...signed],
    generate: (random: FuzzRandom) => {
      const parts = random.pick(requests).map((part) => Buffer.from(part));
      return joinParts([...parts, random.bytes(random.below(64))]);
    },
    run: async (input) => {
      const [method, path, body] = Array.from(partsIn(input), (part) => part.toString('latin1'));
      const isHttp = /^[A-Z]{3,7} \//.test(Buffer.from(input).toString('latin1', 0, 12));
      if (isHttp || method === undefined) {
        await send(Buffer.from(input).toString('latin1'));
      } else if (isToken(method) && isTarget(path ?? '/')) {
        await send(
          rawRequest(sites.primary, 'to-primary', port, {
            method,
            path: path ?? '/',
            body: body ?? '',
          }),
        );
      }
    },
    checkStillWorks: async () => {
      const answer = await ask(sites.primary, sites.source, port, raw().toString());
      assert.deepEqual(answer === 'closed' ? answer : answer.status, 200);
    },
    stop: async () => {
      await source[Symbol.asyncDispose]();
    },
  };
}

/** What the one who signs could write down as a method. */
function isToken(text: string): boolean {
  return /^[!-~]{1,32}$/.test(text);
}

function isTarget(text: string): boolean {
  return /^\/[!-~]{0,4000}$/.test(text);
}
