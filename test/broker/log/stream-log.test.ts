import { join } from 'node:path';

import { beforeEach, describe, expect, test } from 'vitest';

import { LogCursors } from '../../../broker/log/log-cursors.ts';
import { LogRetention } from '../../../broker/log/log-retention.ts';
import { migrateStreamLog } from '../../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../../broker/log/stream-log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import {
  decodeFrame,
  decodeFrameHeader,
  firstPreviousHash,
  frameHash,
} from '../../../common/wire/frame-codec.ts';
import type { Epoch } from '../../../common/wire/frame.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { dataStream, rowRecord } from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const stream = dataStream('vm1');
const opening = { generation: 'g1', reason: 'created' } as const;

let database: Database;
let clock: ManualClock;
let log: StreamLog;
let cursors: LogCursors;

function open(path = ':memory:'): void {
  database = openDatabase(path);
  migrateStreamLog(database);
  log = new StreamLog({ database, clock, random: new SystemRandom() });
  cursors = new LogCursors({ database, clock });
}

beforeEach(() => {
  clock = new ManualClock();
  open();
});

function commit<Result>(work: () => Result): Result {
  return database.transaction(work)();
}

function openAndAppend(count: number): Epoch {
  return commit(() => {
    const { epoch } = log.openEpoch(stream, opening);
    for (let index = 1; index < count; index += 1) {
      log.append(stream, [rowRecord('f', index, [index])]);
    }
    return epoch;
  });
}

function storedSeqs(epoch: Epoch): number[] {
  return log.read(stream, epoch, { fromSeq: 1, throughSeq: 10_000 }, 1e9).map(({ seq }) => seq);
}

function storedCount(epoch: Epoch): number {
  const count = database.prepare<[string], number>(
    `SELECT count(*) FROM stream_log_frames JOIN stream_log_epochs USING (epoch_id) WHERE nonce = ?`,
  );
  return count.pluck().get(epoch.nonce) ?? 0;
}

describe('StreamLog', () => {
  test('numbers frames from 1 and links each to the hash of the previous one', () => {
    const epoch = openAndAppend(3);
    const frames = log.read(stream, epoch, { fromSeq: 1, throughSeq: 9 }, 1e9);
    let previousHash = firstPreviousHash;
    for (const [index, { seq, bytes }] of frames.entries()) {
      expect(seq).toBe(index + 1);
      expect(decodeFrameHeader(bytes)).toMatchObject({
        header: { seq, epoch, stream, previousHash: Uint8Array.from(previousHash) },
      });
      previousHash = frameHash(bytes);
    }
    expect(frames).toHaveLength(3);
  });

  test('appends inside the caller’s transaction: a rollback leaves nothing behind', () => {
    const epoch = openAndAppend(2);
    expect(() =>
      commit(() => {
        log.append(stream, []);
        throw new Error('the origin failed');
      }),
    ).toThrow('the origin failed');
    expect(log.head(stream)).toEqual({ epoch, seq: 2 });
    expect(commit(() => log.append(stream, [])).header.seq).toBe(3);
    expect(() => log.append(stream, [])).toThrow('transaction');
  });

  test('closing an epoch states its last seq, and a new epoch names its predecessor', () => {
    const first = openAndAppend(2);
    const closing = commit(() => log.closeEpoch(stream));
    expect(decodeFrame(closing.bytes)).toMatchObject({
      frame: { records: [{ kind: 'epoch-closed', lastSeq: 3 }] },
    });
    expect(log.head(stream)).toBeUndefined();
    expect(() => commit(() => log.append(stream, []))).toThrow('open the next');
    const { epoch, frame } = commit(() =>
      log.openEpoch(stream, { generation: 'g2', reason: 'generation-changed' }),
    );
    expect(epoch.number).toBe(first.number + 1);
    expect(decodeFrame(frame.bytes)).toMatchObject({
      frame: { records: [{ predecessor: { epoch: first, lastSeq: 3 }, generation: 'g2' }] },
    });
    const third = commit(() => log.openEpoch(stream, opening));
    expect(decodeFrame(third.frame.bytes)).toMatchObject({
      frame: { records: [{ predecessor: { epoch, lastSeq: null } }] },
    });
  });

  test('refuses to append before an epoch is open', () => {
    expect(() => commit(() => log.append(stream, []))).toThrow(
      expect.objectContaining({ code: 'epoch-missing' }),
    );
  });

  test('reads a range up to a number of bytes, but at least one frame', () => {
    const epoch = openAndAppend(10);
    const range = { fromSeq: 2, throughSeq: 9 };
    expect(log.read(stream, epoch, range, 1).map(({ seq }) => seq)).toEqual([2]);
    const all = log.read(stream, epoch, range, 1e9);
    expect(all.map(({ seq }) => seq)).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
    const bytes = all.slice(0, 3).reduce((sum, frame) => sum + frame.bytes.length, 0);
    expect(log.read(stream, epoch, range, bytes)).toHaveLength(3);
  });

  test('goes on where it was after a restart', () => {
    using directory = temporaryDirectory();
    open(join(directory.path, 'log.db'));
    const epoch = openAndAppend(4);
    database.close();
    open(join(directory.path, 'log.db'));
    expect(commit(() => log.append(stream, [])).header).toMatchObject({ epoch, seq: 5 });
    database.close();
  });

  test('leaves the tables of a newer program untouched', () => {
    database.exec('UPDATE stream_log_schema SET version = 99');
    expect(() => {
      migrateStreamLog(database);
    }).toThrow(expect.objectContaining({ code: 'database-newer' }));
  });
});

describe('LogRetention', () => {
  const ageMaxMs = 1_000_000;

  test('prunes what is finally stored first, and without a record of loss', () => {
    const epoch = openAndAppend(20);
    cursors.add('primary');
    const watermark = (throughSeq: number) => [{ stream, epoch, throughSeq }];
    cursors.advance('primary', 'next-hop', watermark(15));
    cursors.advance('primary', 'final-reader', watermark(10));
    const bytes = new LogRetention(
      { database, clock, cursors },
      { ageMaxMs, bytesMax: 1 },
    ).logBytes();
    const retention = new LogRetention(
      { database, clock, cursors },
      { ageMaxMs, bytesMax: bytes - 1 },
    );
    expect(retention.prune()).toMatchObject({ lostFrames: 0, more: false });
    const kept = storedSeqs(epoch);
    expect(kept.at(-1)).toBe(20);
    expect(kept.length).toBeLessThan(20);
    expect(kept[0]).toBeLessThanOrEqual(11);
    expect(log.lostIn(stream, epoch, { fromSeq: 1, throughSeq: 20 })).toEqual([
      {
        fromSeq: 1,
        throughSeq: kept[0]! - 1,
        reason: 'pruned-after-stored',
        declaredAtUs: clock.wallUs(),
      },
    ]);
  });

  test('prunes what the next hop stored only under pressure, then the rest with a durable lost record', () => {
    const epoch = openAndAppend(20);
    cursors.add('primary');
    cursors.advance('primary', 'next-hop', [{ stream, epoch, throughSeq: 15 }]);
    const roomy = new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax: 1e9 });
    expect(roomy.prune()).toEqual({ prunedFrames: 0, lostFrames: 0, more: false });
    expect(
      new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax: 400 }).prune()
        .lostFrames,
    ).toBeGreaterThan(0);
    const kept = storedSeqs(epoch);
    const lost = log.lostIn(stream, epoch, { fromSeq: 1, throughSeq: 20 });
    expect(lost).toEqual([
      { fromSeq: 1, throughSeq: 15, reason: 'pruned-after-stored', declaredAtUs: clock.wallUs() },
      { fromSeq: 16, throughSeq: kept[0]! - 1, reason: 'log-full', declaredAtUs: clock.wallUs() },
    ]);
  });

  test('keeps its size bound though tens of thousands of the oldest frames are stored by nobody', () => {
    // More than one pass looks at; the frames of the other stream behind them are stored.
    const unstored = openAndAppend(20_000);
    const other = dataStream('vm2');
    const stored = commit(() => {
      const { epoch } = log.openEpoch(other, opening);
      for (let index = 1; index < 1_000; index += 1) log.append(other, []);
      return epoch;
    });
    cursors.add('primary');
    const watermark = { stream: other, epoch: stored, throughSeq: 1_000 };
    cursors.advance('primary', 'final-reader', [watermark]);
    const bytesMax = 100_000;
    const retention = new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax });
    let [passes, lostFrames] = [0, 0];
    for (let more = true; more && passes < 10; passes += 1) {
      const pass = retention.prune();
      more = pass.more;
      lostFrames += pass.lostFrames;
    }
    expect(retention.logBytes()).toBeLessThanOrEqual(bytesMax);
    expect(passes).toBeLessThan(10);
    // What is stored went first, without a record of loss.
    expect(log.read(other, stored, { fromSeq: 1, throughSeq: 1_000 }, 1e9)).toEqual([]);
    expect(lostFrames).toBe(20_000 - storedCount(unstored));
  });

  test('one VM’s flood pushes out no frame of another that nobody has stored', () => {
    const other = dataStream('quiet');
    const quiet = commit(() => {
      const { epoch } = log.openEpoch(other, opening);
      for (let index = 1; index < 20; index += 1) log.append(other, []);
      return epoch;
    });
    const flood = openAndAppend(2_000);
    cursors.add('primary');
    const bytesMax = Math.round(
      new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax: 1e9 }).logBytes() / 10,
    );
    const retention = new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax });
    expect(retention.prune().lostFrames).toBeGreaterThan(1_500);
    expect(retention.logBytes()).toBeLessThanOrEqual(bytesMax);
    expect(log.read(other, quiet, { fromSeq: 1, throughSeq: 20 }, 1e9)).toHaveLength(20);
    // Of the flood the oldest went, in one range.
    const kept = storedSeqs(flood);
    expect(log.lostIn(stream, flood, { fromSeq: 1, throughSeq: 2_000 })).toEqual([
      {
        fromSeq: 1,
        throughSeq: (kept[0] ?? 0) - 1,
        reason: 'log-full',
        declaredAtUs: clock.wallUs(),
      },
    ]);
    expect(kept.at(-1)).toBe(2_000);
  });

  test('what the final reader has, the next hop has: no loss where each subscriber says one of both', () => {
    const epoch = openAndAppend(10);
    for (const [subscriber, storedBy] of [
      ['reader', 'final-reader'],
      ['relay', 'next-hop'],
    ] as const) {
      cursors.add(subscriber);
      cursors.advance(subscriber, storedBy, [{ stream, epoch, throughSeq: 10 }]);
    }
    const retention = new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax: 1 });
    expect(retention.prune()).toEqual({ prunedFrames: 10, lostFrames: 0, more: false });
  });

  test('a subscriber’s cursor is durable and holds frames back until it is removed', () => {
    const epoch = openAndAppend(6);
    cursors.add('one');
    cursors.add('two');
    const storedBy = (subscriber: string, throughSeq: number): void => {
      cursors.advance(subscriber, 'final-reader', [{ stream, epoch, throughSeq }]);
    };
    storedBy('one', 6);
    storedBy('two', 2);
    const afterRestart = new LogCursors({ database, clock });
    expect(afterRestart.throughSeq('two', 'final-reader', stream, epoch)).toBe(2);
    const retention = new LogRetention(
      { database, clock, cursors: afterRestart },
      { ageMaxMs, bytesMax: 1 },
    );
    // What one subscriber lacks is not stored: to give it up is a loss.
    expect(retention.prune()).toMatchObject({ prunedFrames: 6, lostFrames: 4 });
    afterRestart.remove('two');
    expect(cursors.subscribers()).toEqual(['one']);
    for (let index = 0; index < 3; index += 1) commit(() => log.append(stream, []));
    storedBy('one', 9);
    expect(retention.prune()).toMatchObject({ prunedFrames: 3, lostFrames: 0 });
  });

  test('frames older than the age bound go, with a record when nobody has them', async () => {
    const epoch = openAndAppend(3);
    await clock.advance(ageMaxMs + 1);
    commit(() => log.append(stream, []));
    const retention = new LogRetention({ database, clock, cursors }, { ageMaxMs, bytesMax: 1e9 });
    expect(retention.prune()).toEqual({ prunedFrames: 3, lostFrames: 3, more: false });
    expect(storedSeqs(epoch)).toEqual([4]);
    expect(log.lostIn(stream, epoch, { fromSeq: 2, throughSeq: 4 })).toEqual([
      { fromSeq: 2, throughSeq: 3, reason: 'log-too-old', declaredAtUs: clock.wallUs() },
    ]);
  });

  test('watermarks never go back and never pass the head', () => {
    const epoch = openAndAppend(5);
    cursors.add('primary');
    cursors.advance('primary', 'next-hop', [{ stream, epoch, throughSeq: 99 }]);
    cursors.advance('primary', 'next-hop', [{ stream, epoch, throughSeq: 2 }]);
    expect(cursors.throughSeq('primary', 'next-hop', stream, epoch)).toBe(5);
    expect(cursors.throughSeq('primary', 'final-reader', stream, epoch)).toBe(0);
  });
});
