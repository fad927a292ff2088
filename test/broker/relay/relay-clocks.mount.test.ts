import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle, programObstacle } from '../../support/requirements.ts';
import { SteppedClock } from '../../support/stepped-clock.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenSteps = 40;
const anHour = 60;
const tenMinutesBack = -10;

/** The VM's state at the reader: by the source's clock as well, so that frames that are kept back don't make it look alive. */
const statesSeen = {
  collector: { ahead: 'running', behind: 'unknown' },
  'relay-1': { ahead: 'running', behind: 'running' },
  reader: { ahead: 'unknown', behind: 'running' },
} as const;

describeUnless(
  fuseObstacle() ?? programObstacle('cc', 'gcc'),
  'clocks that are set under a chain, as processes',
  () => {
    test('the clock of each site in turn an hour ahead, then ten minutes behind: values go on, also after kill -9 there; nothing lost, nothing twice, in order', async () => {
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using collectorClock = await SteppedClock.make();
      using relayClock = await SteppedClock.make();
      using readerClock = await SteppedClock.make();
      const clocks = { collector: collectorClock, 'relay-1': relayClock, reader: readerClock };
      using directory = temporaryDirectory();
      await using chain = new StreamChain(directory.path, 1, true, {
        // Certificates begin five minutes early only; these sites are older than the steps.
        sitesAgeMs: 2 * 3_600_000,
        environments: {
          collector: collectorClock.environment,
          'relay-1': relayClock.environment,
          reader: readerClock.environment,
        },
      });
      await chain.start(chainDescriptor(agent));
      await using load = new ChainLoad(agent);
      const arrives = async (): Promise<void> => {
        await load.more(savesBetweenSteps);
        const goal = load.writer.acknowledged.length;
        await eventually(() => chain.values().length >= goal, timeout);
      };
      const state = async (): Promise<string | undefined> => (await chain.vms())[0]?.state;
      await arrives();
      for (const part of ['collector', 'relay-1', 'reader'] as const) {
        const { ahead, behind } = statesSeen[part];
        clocks[part].set(anHour);
        await arrives();
        await eventually(async () => (await state()) === ahead, timeout);
        clocks[part].set(tenMinutesBack);
        await arrives();
        await chain.crash(part);
        await arrives();
        await eventually(async () => (await state()) === behind, timeout);
        clocks[part].set(0);
        await arrives();
      }
      await eventually(async () => (await state()) === 'running', timeout);
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
      expect(await chain.integrity()).toEqual([]);
      expect(chain.unprotectedFrames()).toBe(0);
    });
  },
);
