import { closeSync, openSync, statSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { openDatabase } from '../../../common/sqlite/database.ts';
import { setAsideFiles } from '../../../common/sqlite/set-aside.ts';
import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { FaultyDisk } from '../../support/faulty-disk.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle, programObstacle } from '../../support/requirements.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenFaults = 150;
const databases = { 'relay-1': 'relay.db', reader: 'primary-site.db' } as const;
type Damaged = keyof typeof databases;

function truncate(path: string): void {
  truncateSync(path, Math.floor(statSync(path).size / 2));
}

function overwrite(path: string): void {
  const file = openSync(path, 'r+');
  const bytes = Math.floor(statSync(path).size / 2);
  writeSync(file, Buffer.alloc(bytes, 0xa5), 0, bytes, Math.floor(bytes / 2));
  closeSync(file);
}

describeUnless(fuseObstacle(), 'damaged databases in a chain, as processes', () => {
  test('a truncated or corrupted SQLite file is found, set aside, healed from a neighbour, reported', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = new StreamChain(directory.path, 1);
    await chain.start(chainDescriptor(agent));
    await using load = new ChainLoad(agent);
    const rounds: readonly (readonly [Damaged, (path: string) => void])[] = [
      ['relay-1', truncate],
      ['reader', overwrite],
      ['relay-1', overwrite],
      ['reader', truncate],
    ];
    for (const [part, damage] of rounds) {
      await load.more(savesBetweenFaults);
      const goal = load.writer.acknowledged.length;
      await eventually(() => chain.values().length >= goal, timeout);
      await chain.kill(part);
      const path = join(chain.dataDirectory(part), databases[part]);
      // Else all of it is in the WAL as well, whose pages have checksums: such damage does no harm.
      openDatabase(path).close();
      damage(path);
      chain.run(part);
    }
    await load.more(savesBetweenFaults);
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
    const { setAside } = await chain.relayStatus('relay-1');
    expect(setAside).toHaveLength(2);
    expect(setAside).toEqual(setAsideFiles(chain.dataDirectory('relay-1')));
    expect(setAsideFiles(chain.dataDirectory('reader'))).toHaveLength(2);
    expect(chain.log.filter((line) => line.includes('database-set-aside'))).toHaveLength(4);
  });
});

describeUnless(
  fuseObstacle() ?? programObstacle('cc', 'gcc'),
  'disks that fail under a chain, as processes',
  () => {
    for (const fault of ['read-only', 'broken'] as const) {
      test(`the disk ${fault} at each site in turn: no process ends, recovery by itself, nothing lost, nothing twice`, async () => {
        await using agent = await mountAgent({ synchronous: 'NORMAL' });
        using collectorDisk = await FaultyDisk.make();
        using relayDisk = await FaultyDisk.make();
        using readerDisk = await FaultyDisk.make();
        const disks = { collector: collectorDisk, 'relay-1': relayDisk, reader: readerDisk };
        using directory = temporaryDirectory();
        await using chain = new StreamChain(directory.path, 1, false, {
          configs: {
            collector: { dataDirectory: join(collectorDisk.path, 'data') },
            'relay-1': { dataDirectory: join(relayDisk.path, 'data') },
          },
          environments: {
            collector: collectorDisk.environment,
            'relay-1': relayDisk.environment,
            reader: { ...readerDisk.environment, FAULTY_DISK_PATH: join(directory.path, 'reader') },
          },
        });
        await chain.start(chainDescriptor(agent));
        const processes = chain.pids();
        await using load = new ChainLoad(agent);
        for (const disk of Object.values(disks)) {
          await load.more(savesBetweenFaults);
          await eventually(() => chain.values().length > 0, timeout);
          disk.fail(fault);
          await load.more(savesBetweenFaults);
          disk.mend();
          const goal = load.writer.acknowledged.length;
          const beganMs = performance.now();
          await eventually(() => chain.values().length >= goal, timeout);
          const elapsedMs = Math.round(performance.now() - beganMs);
          process.stderr.write(`catch-up after a ${fault} disk: ${goal} values, ${elapsedMs} ms\n`);
        }
        const { rows, arrived, ...wrong } = await load.settle(chain);
        expect(arrived).toEqual(rows);
        expect(wrong).toEqual(nothingWrong);
        // The fault was really met where frames are stored.
        for (const part of ['relay-1', 'reader'] as const) {
          expect(chain.says(part, 'frames-not-stored')).toBe(true);
        }
        expect(chain.pids()).toEqual(processes);
      });
    }
  },
);
