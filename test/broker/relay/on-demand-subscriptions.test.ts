import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { OnDemandSubscriptions } from '../../../broker/relay/on-demand-subscriptions.ts';
import { migrateRelayLog } from '../../../broker/relay/relay-log-schema.ts';
import { RelayLog } from '../../../broker/relay/relay-log.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import type { SubscriptionRequest } from '../../../common/site-control/subscription-endpoint.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { chainedFrames, sampleEpoch } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const vm1 = vmIdSchema.parse('vm1');
const vm2 = vmIdSchema.parse('vm2');
const vm3 = vmIdSchema.parse('vm3');

/** A relay that gets vm1 from `upstream`, and vm2 too; `extra` may have vm1 alone. */
function open(path: string) {
  const database = openDatabase(path);
  migrateRelayLog(database);
  const log = new RelayLog({ database, clock: new SystemClock() });
  const policies = new Map([
    ['extra', { vms: new Set<string>(['vm1', 'vm3']), kinds: new Set(['data'] as const) }],
  ]);
  const subscriptions = new OnDemandSubscriptions({ database }, policies);
  const ask = (relation: string, streams: SubscriptionRequest['streams'], hopCount = 0) =>
    subscriptions.subscribe(log, relation, { kind: 'on-demand', streams, hopCount });
  return { database, log, subscriptions, ask };
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
    // Not its own, and unknown here, look the same from outside.
    expect(ask('extra', of(vm2))).toBe('not-authorized');
    expect(ask('extra', of(vm3))).toBe('not-authorized');
    expect(ask('extra', [...of(vm1), { vm: vm1, kind: 'status' }])).toBe('not-authorized');
    expect(ask('stranger', of(vm1))).toBe('not-authorized');
    expect(ask('stranger', 'all')).toBe('not-authorized');
    expect(subscriptions.has('extra', { vm: vm1, kind: 'data' })).toBe(false);
    expect(ask('extra', of(vm1), 2)).toBe('subscribed');
    expect(ask('extra', of(vm1), 2)).toBe('subscribed');
    expect(subscriptions.has('extra', { vm: vm1, kind: 'data' })).toBe(true);
    expect(subscriptions.has('stranger', { vm: vm1, kind: 'data' })).toBe(false);
    expect(subscriptions.hopCountMax).toBe(2);
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
    expect(after.subscriptions.hopCountMax).toBe(3);
    after.database.close();
  });
});
