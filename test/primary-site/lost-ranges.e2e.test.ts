import { afterEach, describe, expect, test } from 'vitest';

import { LogLosses } from '../../broker/log/log-losses.ts';
import { LogRetention } from '../../broker/log/log-retention.ts';
import { RangeSet, type SeqRange } from '../../broker/range-set.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import type { Epoch } from '../../common/wire/frame.ts';
import type { EpochStatus } from '../../primary-site/store/stream-status.ts';
import { eventually } from '../support/eventually.ts';
import { dataStream, rowRecord, sampleStartUs } from '../support/sample-frames.ts';
import { SignedChain } from '../support/signed-chain.ts';

const stream = dataStream('vm1');
const patience = { timeoutMs: 20_000 };
const ageMaxMs = 1e9;
const frameCount = 300;
const filler = 'x'.repeat(300);
/** About a tenth of the frames of a test. */
const smallLogBytes = 15_000;

let chain: SignedChain;

afterEach(async () => {
  await chain.close();
});

/** Frames 1 to `frameCount` of an epoch that stays open. */
function fill(): Epoch {
  const epoch = chain.origin.openEpoch(stream);
  for (let value = 2; value <= frameCount; value += 1) append(value);
  return epoch;
}

function append(value: number): void {
  chain.origin.append(stream, [rowRecord('users', sampleStartUs + value, [value, filler])]);
}

/** What the source's own retention does. */
function pruneSource(bytesMax: number): void {
  const { database, cursors, producer } = chain.origin;
  const clock = new SystemClock();
  const givenUp = new LogLosses({ database, clock });
  new LogRetention({ database, clock, cursors, givenUp }, { ageMaxMs, bytesMax }).prune();
  producer.declareLost(givenUp.take());
}

const everything = { fromSeq: 1, throughSeq: frameCount };

/** The relay gives up the newest: its neighbour has those. */
function relayKeptThrough(): number {
  return chain.relay.relay.log.read(stream, epochOf(), everything, 1e9).at(-1)?.seq ?? 0;
}

function sourceKeptFrom(): number {
  return chain.origin.log.read(stream, epochOf(), everything, 1)[0]?.seq ?? 0;
}

const relayHas = (seq: number) => (): boolean => chain.relay.relay.log.epochs()[0]?.lastSeq === seq;

const shown = (): EpochStatus | undefined => chain.primary.store.vmStatuses()[0]?.epochs[0];

function rangesOf(table: 'stored_ranges' | 'lost_ranges'): SeqRange[] {
  return chain.primary.store.database
    .prepare<[], SeqRange>(
      `SELECT from_seq AS fromSeq, through_seq AS throughSeq FROM ${table} ORDER BY from_seq`,
    )
    .all();
}

/** Waits until every frame is stored or lost; returns which are lost. No frame is both. */
async function settled(through = frameCount): Promise<readonly SeqRange[]> {
  await eventually(() => shown()?.headSeq === through && shown()?.missingFrames === 0, patience);
  const lost = rangesOf('lost_ranges');
  const both = new RangeSet(rangesOf('stored_ranges'));
  for (const { fromSeq, throughSeq } of lost) {
    expect(both.gaps(fromSeq, throughSeq)).toEqual([{ fromSeq, throughSeq }]);
    both.addRange(fromSeq, throughSeq);
  }
  expect(both.ranges).toEqual([{ fromSeq: 1, throughSeq: through }]);
  return lost;
}

/** The relay's log is small, and the primary site is away until its oldest frames have made room. */
async function overflowRelay(): Promise<void> {
  chain = await SignedChain.start({ logBytesMax: smallLogBytes });
  await chain.startPrimary();
  await chain.primary.service.stop();
  fill();
  await eventually(relayHas(frameCount), patience);
  await eventually(() => chain.relay.relay.logBytes() <= smallLogBytes, patience);
  await eventually(
    () => chain.origin.cursors.throughSeq('a', 'next-hop', stream, epochOf()) === frameCount,
    patience,
  );
}

function epochOf(): Epoch {
  const epoch = chain.origin.log.epochs()[0]?.epoch;
  if (epoch === undefined) throw new Error('the source has an epoch');
  return epoch;
}

describe('an outage that is longer than the bound of a log', () => {
  test('of a relay loses nothing that the source still has: it is fetched again', async () => {
    await overflowRelay();
    await chain.startPrimary();
    expect(await settled()).toEqual([]);
    expect(chain.primary.store.lossEvidence(10)).toEqual([]);
    expect(chain.values().filter((value) => typeof value === 'number')).toHaveLength(
      frameCount - 1,
    );
  });

  test('also over a restart of the relay', async () => {
    await overflowRelay();
    await chain.relay[Symbol.asyncDispose]();
    await chain.startRelay({ logBytesMax: smallLogBytes });
    await chain.startPrimary();
    expect(await settled()).toEqual([]);
  });

  test('what nobody on the chain has any more is lost, exact to the frame, by the word of the declaring hop, verified', async () => {
    await overflowRelay();
    // The relay had acknowledged them: the source may forget them.
    pruneSource(smallLogBytes);
    const lost = { fromSeq: relayKeptThrough() + 1, throughSeq: sourceKeptFrom() - 1 };
    expect(lost.throughSeq - lost.fromSeq).toBeGreaterThan(50);
    await chain.startPrimary();
    expect(await settled()).toEqual([lost]);
    expect(shown()?.lost).toEqual([
      { ...lost, reason: 'log-full', declaredBy: 'b', isSigned: true },
    ]);
    expect(chain.findings()).toEqual([]);
  });

  test('of a relay that has no neighbour any more to ask: it declares them lost itself', async () => {
    await overflowRelay();
    await chain.relay[Symbol.asyncDispose]();
    await chain.startRelay({ logBytesMax: smallLogBytes, upstream: [] });
    const lost = { fromSeq: relayKeptThrough() + 1, throughSeq: frameCount };
    await chain.startPrimary();
    expect(await settled()).toEqual([lost]);
    expect(shown()?.lost).toMatchObject([{ reason: 'log-full', declaredBy: 'b', isSigned: true }]);
  });

  test('of the source is a lost record for a reader that is there, one that comes later, and after restarts', async () => {
    chain = await SignedChain.start();
    await chain.relay[Symbol.asyncDispose]();
    fill();
    pruneSource(smallLogBytes);
    await chain.startRelay();
    await chain.startPrimary();
    const lost = await settled();
    expect(lost).toHaveLength(1);
    expect(shown()?.lost).toMatchObject([{ reason: 'log-full', declaredBy: 'b', isSigned: true }]);
    await chain.relay[Symbol.asyncDispose]();
    await chain.startRelay();
    append(frameCount + 1);
    expect(await settled(frameCount + 1)).toEqual(lost);
    expect(chain.primary.store.lossEvidence(10)).toHaveLength(1);
  });
});

/** The source's log loses its oldest frames and the primary site records that; a copy of before is kept. */
async function loseOldest(): Promise<SeqRange> {
  chain = await SignedChain.start();
  await chain.relay[Symbol.asyncDispose]();
  fill();
  chain.copyOrigin();
  pruneSource(smallLogBytes);
  await chain.startRelay();
  await chain.startPrimary();
  const [lost] = await settled();
  if (lost === undefined) throw new Error('the source lost its oldest frames');
  return lost;
}

function relayLost(): SeqRange[] {
  return chain.relay.database
    .prepare<[], SeqRange>(
      'SELECT from_seq AS fromSeq, through_seq AS throughSeq FROM stream_log_lost ORDER BY from_seq',
    )
    .all();
}

describe('a lost range that reappears', () => {
  test('with a restored disk withdraws the record at relay and primary site', async () => {
    await loseOldest();
    await chain.restoreOrigin(() => {});
    await eventually(() => shown()?.lostFrames === 0, patience);
    expect(await settled()).toEqual([]);
    expect(relayLost()).toEqual([]);
    expect(chain.primary.store.lossEvidence(10)).toMatchObject([{ relation: 'b' }]);
  });

  test('in part shrinks it, exact to the frame', async () => {
    const { throughSeq } = await loseOldest();
    const back = { fromSeq: 11, throughSeq: 20 };
    await chain.restoreOrigin((copy) => {
      copy.exec(
        `DELETE FROM stream_log_frames WHERE seq <= ${throughSeq} AND seq NOT BETWEEN 11 AND 20;
         INSERT INTO stream_log_lost SELECT epoch_id, 1, 10, 1, 'log-full', NULL, NULL FROM stream_log_epochs;
         INSERT INTO stream_log_lost
           SELECT epoch_id, 21, ${throughSeq}, 1, 'log-full', NULL, NULL FROM stream_log_epochs`,
      );
    });
    const left = [
      { fromSeq: 1, throughSeq: back.fromSeq - 1 },
      { fromSeq: back.throughSeq + 1, throughSeq },
    ];
    await eventually(() => shown()?.lostFrames === throughSeq - 10, patience);
    expect(await settled()).toEqual(left);
    expect(relayLost()).toEqual(left);
    expect(chain.primary.store.lossEvidence(10).at(-1)).toMatchObject({ returnedCount: 10 });
  });

  test('while the primary site is away is stored when it is back', async () => {
    await loseOldest();
    await chain.primary.service.stop();
    await chain.restoreOrigin(() => {});
    await eventually(() => relayLost().length === 0, patience);
    await chain.startPrimary();
    await eventually(() => shown()?.lostFrames === 0, patience);
    expect(await settled()).toEqual([]);
  });
});
