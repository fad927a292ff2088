import { expect, test } from 'vitest';

import {
  SubscriptionAsker,
  subscriptionAskerDefaults,
} from '../../../broker/relay/subscription-asker.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { serveSubscriptions } from '../../../common/site-control/subscription-endpoint.ts';
import type { StreamId } from '../../../common/wire/frame.ts';
import { TestIdentity } from '../../support/control-site.ts';
import { makeSites } from '../../support/control-source.ts';
import { eventually } from '../../support/eventually.ts';
import { dataStream } from '../../support/sample-frames.ts';
import { ControlNeighbour, ControlSite } from '../../support/site-pair.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 15_000 };
const lifeMs = 600;

function named(streams: 'all' | readonly StreamId[]): string {
  return streams === 'all' ? 'all' : streams.map(({ vm }) => vm).join('+');
}

test('a VM that is not there yet keeps no other from coming; what is wanted is asked for again within its life, the rest ended', async () => {
  const { source, primary, other } = await makeSites();
  using directory = temporaryDirectory();
  const heard: string[] = [];
  const endpoints = serveSubscriptions({
    subscribe: (_relation, { streams, hopCount }) => {
      heard.push(`${named(streams)} ${hopCount}`);
      const isThere = streams !== 'all' && streams.every(({ vm }) => vm !== 'later');
      return Promise.resolve(
        isThere ? { outcome: 'subscribed', lifeMs } : { outcome: 'not-authorized' },
      );
    },
    end: (_relation, keep) => {
      heard.push(`end but ${named(keep)}`);
    },
  });
  const neighbours = { 'to-primary': primary, 'to-other': other };
  await using site = await ControlSite.start(endpoints, source, neighbours, {
    directory: directory.path,
  });
  const identity = new TestIdentity(primary, { 'to-primary': source });
  await using neighbour = new ControlNeighbour(identity, 'to-primary', site.server.port);
  const clock = new SystemClock();
  let wanted = [dataStream('vm1'), dataStream('later')];
  const asker = new SubscriptionAsker(
    { clock, log: silentLog, client: neighbour.client },
    {
      ...subscriptionAskerDefaults,
      relation: 'to-primary',
      wanted: () => wanted,
      hopCount: () => 2,
    },
  );
  await asker.start();
  await eventually(() => heard.length >= 4, timeout);
  expect(heard.slice(0, 4)).toEqual(['vm1+later 2', 'vm1 2', 'later 2', 'end but vm1+later']);
  wanted = [dataStream('vm1')];
  asker.refresh();
  const round = ['vm1 2', 'end but vm1'];
  await eventually(() => String(heard.slice(-4)) === String([...round, ...round]), timeout);
  wanted = [];
  asker.refresh();
  await eventually(() => heard.at(-1) === 'end but ', timeout);
  await asker.stop();
});
