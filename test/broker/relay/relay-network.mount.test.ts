import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { NetworkNamespace, networkNamespaceObstacle } from '../../support/network-namespace.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenFaults = 60;
const linkKilobitsPerSecond = 64;

describeUnless(
  fuseObstacle() ?? networkNamespaceObstacle(),
  'a chain on a network of its own, as processes',
  () => {
    test('every hop at 64 kbit/s with dropped packets, then no packet at all for a while, and back: nothing lost, nothing twice, in order', async () => {
      using network = new NetworkNamespace();
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      await using chain = new StreamChain(directory.path, 1, false, { command: network.command });
      await chain.start(chainDescriptor(agent));
      await using load = new ChainLoad(agent, 10);
      const arrives = async (): Promise<void> => {
        const goal = load.writer.acknowledged.length;
        await eventually(() => chain.values().length >= goal, timeout);
      };
      await load.more(savesBetweenFaults);
      await arrives();
      network.slow(linkKilobitsPerSecond);
      await load.more(savesBetweenFaults);
      await arrives();
      expect(network.droppedCount()).toBeGreaterThan(0);
      network.cut();
      const before = chain.values().length;
      await load.more(savesBetweenFaults);
      expect(chain.values().length - before).toBeLessThan(savesBetweenFaults);
      network.restore();
      await arrives();
      network.fast();
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
    });
  },
);
