import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { LogCursors } from '../../../broker/log/log-cursors.ts';
import { LogRetention } from '../../../broker/log/log-retention.ts';
import { OnDemandSubscriptions } from '../../../broker/relay/on-demand-subscriptions.ts';
import { migrateRelayLog } from '../../../broker/relay/relay-log-schema.ts';
import { RelayLog } from '../../../broker/relay/relay-log.ts';
import type { SubscriptionRequest } from '../../../common/site-control/subscription-endpoint.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import type { StreamId } from '../../../common/wire/frame.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { everyStream } from '../../support/relay-site.ts';
import { chainedFrames, sampleEpoch } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const vm1 = vmIdSchema.parse('vm1');
const vm2 = vmIdSchema.parse('vm2');
const vm3 = vmIdSchema.parse('vm3');

const lifeMs = 60_000;

/** A relay that gets vm1 from `upstream`, and vm2 too; `extra` may have vm1 and vm3 alone. */
function open(path: string, clock: ManualClock = new ManualClock()) {
  const database = openDatabase(path);
  migrateRelayLog(database);
  const log = new RelayLog({ database, clock });
  const policies = new Map([
    ['extra', { vms: new Set<string>(['vm1', 'vm3']), kinds: new Set(['data'] as const) }],
  ]);
  const subscriptions = new OnDemandSubscriptions({ database, clock }, { policies, lifeMs });
  const ask = (relation: string, streams: SubscriptionRequest['streams'], hopCount = 0) => {
    const { outcome } = subscriptions.judge(log, relation, { streams });
    if (outcome === 'subscribed') subscriptions.record(relation, { streams, hopCount });
    return outcome;
  };
  return { database, clock, log, subscriptions, ask };
}

/** One frame of the VM's data stream, from a neighbour. */
function bring(log: RelayLog, relation: string, vm: typeof vm1): void {
  const stream = { vm, kind: 'data' as const };
  log.claim(relation, stream, sampleEpoch);
  log.store(chainedFrames(stream, 1));
}

function of(vm: typeof vm1) {
  return [{ vm, kind: 'data' as const }];
}

describe('OnDemandSubscriptions', () => {
  test('a neighbour gets what it asked for, of what its relation allows and what comes by', () => {
    using directory = temporaryDirectory();
    const { database, log, subscriptions, ask } = open(join(directory.path, 'relay.db'));
    for (const vm of [vm1, vm2]) bring(log, 'upstream', vm);
    expect(subscriptions.has('extra', { vm: vm1, kind: 'data' })).toBe(false);
    expect(subscriptions.hopCount).toBe(0);
    expect(ask('extra', of(vm2))).toBe('not-authorized');
    expect(ask('extra', of(vm3))).toBe('unknown');
    expect(ask('extra', [...of(vm1), { vm: vm1, kind: 'status' }])).toBe('not-authorized');
    expect(ask('stranger', of(vm1))).toBe('not-authorized');
    expect(ask('stranger', 'all')).toBe('not-authorized');
    expect(subscriptions.has('extra', { vm: vm1, kind: 'data' })).toBe(false);
    expect(ask('extra', of(vm1), 2)).toBe('subscribed');
    expect(ask('extra', of(vm1), 2)).toBe('subscribed');
    expect(subscriptions.has('extra', { vm: vm1, kind: 'data' })).toBe(true);
    expect(subscriptions.has('stranger', { vm: vm1, kind: 'data' })).toBe(false);
    expect(subscriptions.hopCount).toBe(2);
    database.close();
  });

  test('a neighbour that asks for a stream that comes from itself is told of the loop', () => {
    using directory = temporaryDirectory();
    const { database, log, ask } = open(join(directory.path, 'relay.db'));
    bring(log, 'upstream', vm1);
    bring(log, 'extra', vm2);
    expect(ask('upstream', of(vm1))).toBe('already-relayed');
    expect(ask('upstream', 'all')).toBe('already-relayed');
    expect(ask('extra', of(vm2))).toBe('already-relayed');
    expect(ask('extra', of(vm1))).toBe('subscribed');
    database.close();
  });

  test('outlives a restart', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'relay.db');
    const before = open(path);
    expect(before.ask('extra', 'all', 3)).toBe('subscribed');
    before.database.close();
    const after = open(path);
    expect(after.subscriptions.has('extra', { vm: vm2, kind: 'status' })).toBe(true);
    expect(after.subscriptions.hopCount).toBe(3);
    after.database.close();
  });

  test('ends what is not asked for again within its life, and by request all but what goes on', async () => {
    using directory = temporaryDirectory();
    const { database, clock, log, subscriptions, ask } = open(join(directory.path, 'relay.db'));
    for (const vm of [vm1, vm3]) bring(log, 'upstream', vm);
    const kept = (): unknown =>
      [vm1, vm3].map((vm) => subscriptions.has('extra', { vm, kind: 'data' }));
    ask('extra', of(vm1));
    ask('extra', of(vm3));
    await clock.advance(lifeMs / 2);
    ask('extra', of(vm1));
    await clock.advance(lifeMs / 2);
    expect(kept()).toEqual([true, false]);
    expect(subscriptions.expire()).toBe(true);
    expect(subscriptions.expire()).toBe(false);
    expect(subscriptions.wanted(everyStream)).toEqual(of(vm1));
    ask('extra', of(vm3));
    expect(subscriptions.end('extra', of(vm3))).toBe(true);
    expect(subscriptions.end('extra', of(vm3))).toBe(false);
    expect(kept()).toEqual([false, true]);
    expect(subscriptions.end('extra', [])).toBe(true);
    expect(subscriptions.wanted(everyStream)).toEqual([]);
    database.close();
  });
});

describe('what only an extra consumer asked for', () => {
  test('is kept for it no longer when that ended: it goes first, and its going is no loss', () => {
    using directory = temporaryDirectory();
    const { database, clock, log, subscriptions, ask } = open(join(directory.path, 'relay.db'));
    for (const vm of [vm1, vm3]) bring(log, 'upstream', vm);
    ask('extra', [...of(vm1), ...of(vm3)]);
    const mayHave = (relation: string, stream: StreamId) => subscriptions.has(relation, stream);
    const cursors = new LogCursors({ database, clock, mayHave });
    cursors.add('extra');
    const retention = new LogRetention(
      { database, clock, cursors, isWanted: (stream) => subscriptions.has('extra', stream) },
      { bytesMax: 1_000_000, ageMaxMs: 0 },
    );
    const held = () =>
      log.read({ vm: vm1, kind: 'data' }, sampleEpoch, { fromSeq: 1, throughSeq: 1 }, 1_000_000);
    subscriptions.end('extra', of(vm3));
    clock.stepWall(1_000);
    expect(held().length).toBe(1);
    // One of a VM that is still asked for has to be declared lost.
    expect(retention.prune()).toMatchObject({ prunedFrames: 2, lostFrames: 1 });
    expect(held()).toEqual([]);
    database.close();
  });
});
