import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { NamedEpochs } from '../../../broker/relay/named-epochs.ts';
import { migrateRelayLog } from '../../../broker/relay/relay-log-schema.ts';
import { RelayLog } from '../../../broker/relay/relay-log.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { chainedFrames, dataStream, sampleEpoch } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let database: Database;
let clock: ManualClock;
let log: RelayLog;

beforeEach(() => {
  directory = temporaryDirectory();
  database = openDatabase(join(directory.path, 'relay.db'), { synchronous: 'NORMAL' });
  migrateRelayLog(database);
  clock = new ManualClock();
  log = new RelayLog({ database, clock });
});

afterEach(() => {
  database.close();
  directory[Symbol.dispose]();
});

function forget(): void {
  log.forget();
}

function newNames(vmsMax: number, burst = 1_000): NamedEpochs {
  const rate = { burst, perSecond: 1 };
  return new NamedEpochs({ database, clock, onEvicted: forget }, 'a', vmsMax, rate);
}

/** As the relay does with what it has not heard of. */
function name(names: NamedEpochs, vm: string): boolean {
  return names.admits(vm) && log.claim('a', dataStream(vm), sampleEpoch);
}

describe('NamedEpochs', () => {
  test('a VM without frames gives its place to a new one, not at once', async () => {
    const names = newNames(2);
    expect([name(names, 'kept'), name(names, 'empty'), name(names, 'new')]).toEqual([
      true,
      true,
      false,
    ]);
    log.store(chainedFrames(dataStream('kept'), 3));
    await clock.advance(120_000);
    expect([name(names, 'new'), name(names, 'another')]).toEqual([true, false]);
    const known = database.prepare('SELECT DISTINCT vm FROM stream_log_epochs ORDER BY vm');
    expect(known.pluck().all()).toEqual(['kept', 'new']);
  });

  test('the bound outlasts a restart', () => {
    const before = newNames(2);
    for (const vm of ['one', 'two']) {
      expect(name(before, vm)).toBe(true);
      log.store(chainedFrames(dataStream(vm), 1));
    }
    expect(newNames(2).admits('three')).toBe(false);
    expect(newNames(2).admits('one')).toBe(true);
  });

  test('epochs begin at a bounded rate', async () => {
    const names = newNames(1_000, 3);
    expect(['a', 'b', 'c', 'd'].map((vm) => name(names, vm))).toEqual([true, true, true, false]);
    await clock.advance(1_000);
    expect([name(names, 'd'), name(names, 'e')]).toEqual([true, false]);
  });
});
