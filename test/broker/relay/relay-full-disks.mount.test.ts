import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle, rootObstacle } from '../../support/requirements.ts';
import { SmallDisk } from '../../support/small-disk.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenFaults = 150;

describeUnless(
  fuseObstacle() ?? rootObstacle(),
  'disks that are full under a chain, as processes',
  () => {
    test('the disk full at each process in turn, then at all: no process ends, recovery by itself, nothing lost, nothing twice, in order', async () => {
      using agentDisk = new SmallDisk('24m');
      await using agent = await mountAgent({
        synchronous: 'NORMAL',
        dataParentPath: agentDisk.path,
      });
      using collectorDisk = new SmallDisk('24m');
      using relayDisk = new SmallDisk('24m');
      using readerDisk = new SmallDisk('24m');
      using directory = temporaryDirectory();
      await using chain = new StreamChain(directory.path, 1, false, {
        directories: {
          collector: collectorDisk.path,
          'relay-1': relayDisk.path,
          reader: readerDisk.path,
        },
      });
      await chain.start(chainDescriptor(agent));
      await using load = new ChainLoad(agent);
      const processes = { agent: agent.pid, ...chain.pids() };
      const met = {
        agent: () => load.writer.refused.has('ENOSPC'),
        collector: () => chain.says('collector', 'origin-commit-failed'),
        'relay-1': () => chain.says('relay-1', 'frames-not-stored'),
        reader: () => chain.says('reader', 'frames-not-stored'),
      };
      const disks = {
        agent: agentDisk,
        collector: collectorDisk,
        'relay-1': relayDisk,
        reader: readerDisk,
      };
      const newestArrived = (): number => Number(chain.values().at(-1) ?? 0);
      for (const part of ['agent', 'collector', 'relay-1', 'reader'] as const) {
        await load.more(savesBetweenFaults);
        await eventually(() => chain.values().length > 0, timeout);
        disks[part].fill();
        await eventually(met[part], timeout);
        if (part === 'relay-1') {
          // It hands on what it can't store.
          const newest = load.writer.acknowledged.at(-1) ?? 0;
          await eventually(() => newestArrived() > newest, timeout);
        }
        if (part !== 'agent') await load.more(savesBetweenFaults);
        disks[part].empty();
        await load.more(1);
        const goal = load.writer.acknowledged.length;
        const beganMs = performance.now();
        await eventually(() => chain.values().length >= goal, timeout);
        const elapsedMs = Math.round(performance.now() - beganMs);
        process.stderr.write(
          `catch-up after a full disk of ${part}: ${goal} values, ${elapsedMs} ms\n`,
        );
      }
      for (const disk of Object.values(disks)) disk.fill();
      load.writer.refused.clear();
      await eventually(met.agent, timeout);
      for (const disk of Object.values(disks)) disk.empty();
      await load.more(savesBetweenFaults);
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
      expect({ agent: agent.pid, ...chain.pids() }).toEqual(processes);
    });
  },
);
