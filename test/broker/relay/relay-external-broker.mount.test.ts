import { expect, onTestFinished, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import {
  freePort,
  prepareExternalBroker,
  startExternalBroker,
} from '../../support/external-broker.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const savesBetweenFaults = 150;
const prepared = prepareExternalBroker('mosquitto');

describeUnless(
  fuseObstacle() ?? (prepared.ok ? undefined : prepared.reason),
  'a chain over a broker that others run, as processes',
  () => {
    test('kill -9 of the broker of both hops, alone and with the relay, under load: nothing lost, nothing twice, in order', async () => {
      if (!prepared.ok) return;
      const port = await freePort();
      let broker = await startExternalBroker('mosquitto', prepared.program, port);
      onTestFinished(() => broker.stop());
      const { url } = broker;
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      await using chain = new StreamChain(directory.path, 1, false, {
        configs: {
          collector: { mqttUrl: url },
          'relay-1': {
            relations: [
              { relation: 'relay-1', direction: 'upstream', dial: url },
              { relation: 'reader', direction: 'downstream', dial: url },
            ],
          },
          reader: { mqttUrl: url },
        },
      });
      await chain.start(chainDescriptor(agent));
      await using load = new ChainLoad(agent);
      for (const parts of [[], ['relay-1'], []] as const) {
        await load.more(savesBetweenFaults);
        await Promise.all([broker.stop(), ...parts.map((part) => chain.crash(part))]);
        await load.more(savesBetweenFaults);
        broker = await startExternalBroker('mosquitto', prepared.program, port);
      }
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
    });
  },
);
