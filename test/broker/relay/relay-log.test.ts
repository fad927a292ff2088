import { beforeEach, describe, expect, test } from 'vitest';

import { reasonTextsToCodes } from '../../../broker/log/loss-evidence.ts';
import type { LostFrames } from '../../../broker/ports.ts';
import { migrateRelayLog } from '../../../broker/relay/relay-log-schema.ts';
import { RelayLog } from '../../../broker/relay/relay-log.ts';
import { declareLoss } from '../../../common/signing/loss-declaration.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { lossReasons, lossReasonTexts } from '../../../common/wire/loss-reason.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { chainedFrames, dataStream, sampleEpoch as epoch } from '../../support/sample-frames.ts';

const stream = dataStream('vm1');
const unsigned: Omit<LostFrames, 'fromSeq' | 'throughSeq'> = {
  epoch,
  reason: 'log-full',
  declaredAtUs: 7,
  declaredBy: 'a',
  proof: null,
};

let database: Database;
let log: RelayLog;

beforeEach(() => {
  database = openDatabase(':memory:');
  migrateRelayLog(database);
  log = new RelayLog({ database, clock: new ManualClock() });
});

/** As the neighbour of relation `a` would sign it; that is judged elsewhere. */
function signed(fromSeq: number, throughSeq: number): LostFrames {
  const claim = { ...unsigned, stream, fromSeq, throughSeq };
  const declaration = { ...declareLoss(claim, undefined), signature: 'AAAA' };
  return { ...unsigned, fromSeq, throughSeq, proof: { certificate: 'AAAA', declaration } };
}

function declareInPieces(): void {
  for (let seq = 1; seq < 20_000; seq += 2) {
    log.declareLost(stream, { ...unsigned, fromSeq: seq, throughSeq: seq });
  }
}

const rows = (): unknown[] =>
  database
    .prepare('SELECT from_seq, through_seq, evidence_id FROM stream_log_lost ORDER BY from_seq')
    .raw()
    .all();

describe('RelayLog', () => {
  test('a signed declaration takes the place of an unsigned one, and not the other way round', () => {
    log.declareLost(stream, { ...unsigned, fromSeq: 1, throughSeq: 9 });
    expect(rows()).toEqual([[1, 9, null]]);
    log.declareLost(stream, signed(3, 5));
    const mixed = [
      [1, 2, null],
      [3, 5, 1],
      [6, 9, null],
    ];
    expect(rows()).toEqual(mixed);
    log.declareLost(stream, { ...unsigned, fromSeq: 1, throughSeq: 9 });
    expect(rows()).toEqual(mixed);
  });

  test('a declaration that covers an earlier one and more is one range with it', () => {
    log.declareLost(stream, signed(1, 4));
    log.declareLost(stream, signed(1, 9));
    expect(rows()).toEqual([[1, 9, 2]]);
    // One that says nothing of the other is a range of its own; downstream they are one.
    expect(log.declareLost(stream, signed(10, 12))).toMatchObject([{ fromSeq: 1, throughSeq: 12 }]);
    expect(rows()).toEqual([
      [1, 9, 2],
      [10, 12, 3],
    ]);
  });

  test('what is stored is not lost, and what comes after all withdraws the declaration', () => {
    const frames = chainedFrames(stream, 4);
    log.store(frames.slice(0, 2));
    log.declareLost(stream, signed(1, 4));
    expect(rows()).toEqual([[3, 4, 1]]);
    expect(log.store(frames)).toMatchObject([{ frameCount: 2, declaredBy: 'a' }]);
    expect(rows()).toEqual([]);
  });

  test('does not believe a neighbour that declares more pieces of an epoch than are kept', () => {
    expect(declareInPieces).toThrow(expect.objectContaining({ code: 'too-many-losses' }));
    expect(rows()).toHaveLength(1_024);
  });

  test('reasons that were texts become their codes', () => {
    database.exec('CREATE TABLE older (reason TEXT NOT NULL)');
    const insert = database.prepare('INSERT INTO older VALUES (?)');
    for (const reason of lossReasons) insert.run(lossReasonTexts[reason]);
    database.exec(reasonTextsToCodes('older'));
    expect(database.prepare('SELECT reason FROM older').pluck().all()).toEqual(lossReasons);
  });
});
