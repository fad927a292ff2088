import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { RangeSet, type SeqRange } from '../../../broker/range-set.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { chainDescriptor } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain, type ChainPart } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

/** Looking costs the processes the machine that they share with the test. */
const timeout = { timeoutMs: 60_000, pollMs: 100 };
/** The smallest that is allowed; an outage brings more than twice as much. */
const smallLog = { logBytesMax: 1_048_576, logPruneIntervalMs: 200 };
const filler = 'x'.repeat(8_000);
const savesAtOnce = 20;
/** That many fall off in an outage. */
const framesGone = 30;

interface EpochRange extends SeqRange {
  /** Stream and epoch. */
  readonly place: string;
}

const places = `vm || '/' || kind || '/' || number || '/' || nonce AS place`;

function rows<Row>(chain: StreamChain, part: ChainPart, file: string, sql: string): Row[] {
  const database = openDatabase(join(chain.dataDirectory(part), file), { readonly: true });
  try {
    return database.prepare<[], Row>(sql).all();
  } finally {
    database.close();
  }
}

/** Every frame that the collector ever made. */
const sent = (chain: StreamChain): EpochRange[] =>
  rows(
    chain,
    'collector',
    'collector.db',
    `SELECT ${places}, 1 AS fromSeq, last_seq AS throughSeq FROM stream_log_epochs`,
  );

const atReader = (chain: StreamChain, table: 'stored_ranges' | 'lost_ranges'): EpochRange[] =>
  rows(
    chain,
    'reader',
    'primary-site.db',
    `SELECT ${places}, from_seq AS fromSeq, through_seq AS throughSeq
     FROM ${table} JOIN epochs USING (epoch_id) ORDER BY place, from_seq`,
  );

/** The oldest data frame that the collector has; the newest that the relay has. */
function kept(chain: StreamChain, what: 'min' | 'max'): number {
  const [part, file] =
    what === 'min' ? (['collector', 'collector.db'] as const) : (['relay-1', 'relay.db'] as const);
  const sql = `SELECT ${what}(seq) AS seq FROM stream_log_frames
    JOIN stream_log_epochs USING (epoch_id) WHERE kind = 'data'`;
  return rows<{ seq: number }>(chain, part, file, sql)[0]?.seq ?? 0;
}

const head = (chain: StreamChain): number =>
  Math.max(
    ...sent(chain).flatMap(({ place, throughSeq }) => (place.includes('/data/') ? throughSeq : [])),
  );

/** Frames of `ranges` in each epoch; a frame that is in two of them fails the test. */
function setsOf(ranges: readonly EpochRange[]): Map<string, RangeSet> {
  const sets = new Map<string, RangeSet>();
  for (const { place, fromSeq, throughSeq } of ranges) {
    const set = sets.get(place) ?? new RangeSet();
    expect(set.gaps(fromSeq, throughSeq)).toEqual([{ fromSeq, throughSeq }]);
    set.addRange(fromSeq, throughSeq);
    sets.set(place, set);
  }
  return sets;
}

/** Waits until the reader has, stored or lost, exactly what was sent until now, and no frame both. Returns what is lost. */
async function settled(chain: StreamChain): Promise<readonly EpochRange[]> {
  const goal = sent(chain);
  await eventually(() => {
    const here = setsOf([...atReader(chain, 'stored_ranges'), ...atReader(chain, 'lost_ranges')]);
    return goal.every(({ place, throughSeq }) => here.get(place)?.gaps(1, throughSeq).length === 0);
  }, timeout);
  const here = setsOf([...atReader(chain, 'stored_ranges'), ...atReader(chain, 'lost_ranges')]);
  const known = new Map(sent(chain).map(({ place, throughSeq }) => [place, throughSeq]));
  for (const [place, set] of here) expect(set.lastSeq).toBeLessThanOrEqual(known.get(place) ?? 0);
  return atReader(chain, 'lost_ranges');
}

async function save(agent: MountedAgent, count: number): Promise<void> {
  const path = join(agent.mountPath, 'unencrypted', 'load');
  for (let index = 0; index < count; index += 1) await writeFile(path, `${index},${filler}`);
}

/** The reader is away while more frames are made than a log holds, until `hasOverflown`. */
async function outage(
  chain: StreamChain,
  agent: MountedAgent,
  hasOverflown: () => boolean,
): Promise<void> {
  await save(agent, 1);
  await eventually(
    () =>
      atReader(chain, 'stored_ranges').some(
        ({ place, throughSeq }) => place.includes('/data/') && throughSeq > 1,
      ),
    timeout,
  );
  await chain.kill('reader');
  while (!hasOverflown()) await save(agent, savesAtOnce);
  chain.run('reader');
}

/** The certificates that the declarations at the reader are signed with. */
async function declaringCertificates(chain: StreamChain): Promise<ReadonlySet<string>> {
  await eventually(async () => (await chain.losses()).length > 0, timeout);
  return new Set((await chain.losses()).map(({ certificate }) => certificate));
}

function signingCertificate(chain: StreamChain, part: ChainPart): string {
  const path = siteFiles(chain.siteDirectory(part)).certificate('signing');
  return new X509Certificate(readFileSync(path)).raw.toString('base64');
}

describeUnless(fuseObstacle(), 'an outage longer than a log’s bound, as processes', () => {
  test('at a relay: what the source still has is fetched again, nothing is lost', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = new StreamChain(directory.path, 1, true, {
      configs: { 'relay-1': smallLog },
    });
    await chain.start(chainDescriptor(agent));
    await outage(chain, agent, () => kept(chain, 'max') + framesGone < head(chain));
    expect(await settled(chain)).toEqual([]);
    expect(await chain.losses()).toEqual([]);
    expect(await chain.integrity()).toEqual([]);
  });

  test('at a relay and its source: stored and lost frames are what was sent, exactly, by the word of the relay', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = new StreamChain(directory.path, 1, true, {
      configs: { collector: smallLog, 'relay-1': smallLog },
    });
    await chain.start(chainDescriptor(agent));
    await outage(chain, agent, () => kept(chain, 'max') + framesGone < kept(chain, 'min'));
    const lost = await settled(chain);
    expect(lost.length).toBeGreaterThan(0);
    expect(await declaringCertificates(chain)).toEqual(
      new Set([signingCertificate(chain, 'relay-1')]),
    );
    const shown = (await chain.vms())[0]?.epochs.flatMap((epoch) => epoch.lost) ?? [];
    expect(shown.length).toBeGreaterThan(0);
    for (const each of shown) {
      expect(each).toMatchObject({ reason: 'log-full', declaredBy: 'reader', isSigned: true });
    }
    expect(await chain.integrity()).toEqual([]);
  });

  test('at the collector: stored and lost frames are what was sent, exactly, by the word of the collector', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = new StreamChain(directory.path, 0, true, {
      configs: { collector: smallLog },
    });
    await chain.start(chainDescriptor(agent));
    await outage(chain, agent, () => kept(chain, 'min') > framesGone);
    expect((await settled(chain)).length).toBeGreaterThan(0);
    expect(await declaringCertificates(chain)).toEqual(
      new Set([signingCertificate(chain, 'collector')]),
    );
    expect(await chain.integrity()).toEqual([]);
  });
});
