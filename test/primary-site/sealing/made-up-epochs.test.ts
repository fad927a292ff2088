import { createPublicKey } from 'node:crypto';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { newEpochKey } from '../../../common/signing/epoch-key.ts';
import {
  signStatement,
  verifyStatement,
  type VerifiedClaim,
} from '../../../common/signing/key-statement.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { migrate } from '../../../common/sqlite/migrate.ts';
import type { Epoch } from '../../../common/wire/frame.ts';
import { IntegrityRecords } from '../../../primary-site/sealing/integrity-records.ts';
import { StatedKeys } from '../../../primary-site/sealing/stated-keys.ts';
import { BookkeepingRetention } from '../../../primary-site/store/bookkeeping-retention.ts';
import { primaryStoreMigrations } from '../../../primary-site/store/primary-store-schema.ts';
import { dataStream, sampleEpoch } from '../../support/sample-frames.ts';

const stream = dataStream('vm1');
const siteKey = newEpochKey();
const madeUpCount = 200;
const keysWithoutFramesMax = 100;
const limits = { recordsPerVmMax: 50, recordsMax: 500 };
const nowUs = 1_700_000_000_000_000;

let database: Database;
let records: IntegrityRecords;

beforeEach(() => {
  database = openDatabase(':memory:');
  migrate(database, primaryStoreMigrations);
  records = new IntegrityRecords(database, limits);
});
afterEach(() => {
  database.close();
});

function farEpoch(index: number): Epoch {
  const nonce = index.toString(16).padStart(16, '0');
  return { number: Number.MAX_SAFE_INTEGER - index, nonce };
}

function claimOf(epoch: Epoch, publicKey: Uint8Array): VerifiedClaim {
  const claim = { stream, epoch, publicKey, predecessor: null };
  const statement = signStatement(claim, siteKey.privateKey);
  const outcome = verifyStatement(statement, createPublicKey(siteKey.privateKey));
  if (!outcome.ok) throw new Error(outcome.code);
  return outcome.claim;
}

function findingsOf(vm: string): readonly string[] {
  return records
    .list()
    .filter((record) => record.vm === vm)
    .map(({ epoch, finding, count }) => `${epoch} ${finding} ${count}`);
}

test('keys of other epochs, however far and many, replace none that frames were verified with', () => {
  const [truth, forged] = [newEpochKey().publicKey, newEpochKey().publicKey];
  const keys = new StatedKeys(database, records, { keysWithoutFramesMax });
  expect(keys.accept(claimOf(sampleEpoch, truth), nowUs)).toBe(true);
  // A frame of it has come.
  database
    .prepare('INSERT INTO epochs (vm, kind, number, nonce) VALUES (?, ?, ?, ?)')
    .run(stream.vm, stream.kind, sampleEpoch.number, sampleEpoch.nonce);
  for (let index = 0; index < madeUpCount; index += 1) {
    expect(keys.accept(claimOf(farEpoch(index), forged), nowUs)).toBe(true);
  }
  const restarted = new StatedKeys(database, records, { keysWithoutFramesMax });
  expect(restarted.accept(claimOf(sampleEpoch, forged), nowUs)).toBe(false);
  expect(findingsOf('vm1')).toEqual([`${sampleEpoch.number} key-contradicting 1`]);
  expect(restarted.keyOf(stream, sampleEpoch)).toBeDefined();
  // The oldest of those that nothing came of have made room.
  expect(restarted.keyOf(stream, farEpoch(madeUpCount - keysWithoutFramesMax))).toBeDefined();
  expect(restarted.keyOf(stream, farEpoch(0))).toBeUndefined();
});

/** A place that nobody has a frame of. */
function made(vm: string, index: number) {
  return { stream: dataStream(vm), epoch: farEpoch(index), seq: 1 };
}

test('findings of epochs and VMs that someone makes up hide no other, and none goes uncounted', () => {
  for (let index = 0; index < 400; index += 1) {
    records.note(made('flooder', index), 'unsigned', nowUs);
  }
  for (let index = 0; index < 1_000; index += 1) {
    records.note(made(`made-up-${index}`, 0), 'unsigned', nowUs + index);
  }
  records.note({ stream, epoch: sampleEpoch, seq: 7 }, 'forged', nowUs);
  records.note({ stream, epoch: sampleEpoch, seq: 8 }, 'forged', nowUs);
  for (let index = 0; index < 1_000; index += 1) {
    records.note(made(`made-up-later-${index}`, 0), 'key-not-stated', nowUs + index);
  }
  expect(findingsOf('vm1')).toEqual([`${sampleEpoch.number} forged 2`]);
  const counted = database
    .prepare<[], number>(`SELECT sum(count) FROM integrity WHERE finding = 'unsigned'`)
    .pluck();
  expect(counted.get()).toBe(400 + 1_000);
  const rows = database.prepare<[], number>('SELECT count(*) FROM integrity').pluck().get();
  expect(rows).toBeLessThanOrEqual(limits.recordsMax + 10);
});

test('made-up epochs without frames push out no epoch that has some, and there is a bound to them', () => {
  const insert = database.prepare(
    "INSERT INTO epochs (vm, kind, number, nonce) VALUES ('vm1', 'data', ?, ?)",
  );
  const { lastInsertRowid: epochId } = insert.run(sampleEpoch.number, sampleEpoch.nonce);
  database
    .prepare(`INSERT INTO frames (epoch_id, seq, last_position, bytes) VALUES (?, 1, 1, x'')`)
    .run(epochId);
  database.transaction(() => {
    for (let index = 0; index < 4_200; index += 1) {
      const { number, nonce } = farEpoch(index);
      insert.run(number, nonce);
    }
  })();
  new BookkeepingRetention(database).prune(0);
  const left = database.prepare<[], number>('SELECT number FROM epochs').pluck().all();
  expect(left).toHaveLength(4_096 + 1);
  expect(left).toContain(sampleEpoch.number);
});
